-- As of when the data of a standby are. To be asked before the snapshot is taken.
-- It is caught up when all that a connected walreceiver got is replayed: then its data are as of the last word that it had.
-- Who may not see when that was takes the longest time for which a dead line goes unnoticed.
SELECT GREATEST(pg_last_xact_replay_timestamp(), (
           SELECT COALESCE(w.last_msg_receipt_time,
                           clock_timestamp() - NULLIF(current_setting('wal_receiver_timeout')::interval, '0'))
             FROM pg_stat_wal_receiver w
            WHERE pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()))
