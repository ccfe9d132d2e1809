-- Is this a standby, what time is it, and as of when are its data? To be asked before the snapshot is taken.
-- A standby is caught up when all that a connected walreceiver got is replayed: then its data are as of the last word that
-- it had. Who may not see when that was takes the longest time for which a dead line goes unnoticed.
SELECT pg_is_in_recovery() AS standby, clock_timestamp() AS now,
       CASE WHEN pg_is_in_recovery() THEN GREATEST(pg_last_xact_replay_timestamp(), (
           SELECT COALESCE(w.last_msg_receipt_time,
                           clock_timestamp() - NULLIF(current_setting('wal_receiver_timeout')::interval, '0'))
             FROM pg_stat_wal_receiver w
            WHERE pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn())) END AS replayed_at
