-- The rows r of one extract for every clinic of a query: a part of FROM.
(
{clinics}
           ) AS clinica_del_respaldo (id, name, language)
     CROSS JOIN LATERAL (
{extract}
           ) AS r
