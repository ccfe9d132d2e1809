-- The time of a standby's data. Run this before the snapshot is taken. A standby is caught up if it has replayed
-- everything that a connected walreceiver got. Its data then have the time of the last message. If the role may not
-- see that time, the longest time is assumed for which a dead connection goes unnoticed.
SELECT GREATEST(pg_last_xact_replay_timestamp(), (
           SELECT COALESCE(w.last_msg_receipt_time,
                           clock_timestamp() - NULLIF(current_setting('wal_receiver_timeout')::interval, '0'))
             FROM pg_stat_wal_receiver w
            WHERE pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()))
