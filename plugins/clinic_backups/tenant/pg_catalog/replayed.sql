-- The time of a standby's data. Run this before the snapshot is taken. The last replayed commit proves it. What a
-- walreceiver hears does not: a standby that sends to others goes on sending signs of life after it has lost its own
-- primary, and nothing in them says so. They count only if the operator says that the sender is the primary (direct).
-- Then a standby that has replayed everything that a connected walreceiver got has data of the time of the last message.
-- If the role may not see that time, the longest time is assumed for which a dead connection goes unnoticed.
SELECT GREATEST(pg_last_xact_replay_timestamp(), (
           SELECT COALESCE(w.last_msg_receipt_time,
                           clock_timestamp() - NULLIF(current_setting('wal_receiver_timeout')::interval, '0'))
             FROM pg_stat_wal_receiver w
            WHERE %(direct)s AND pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()))
