-- Each claim and settle adds an entry for a new row to these three, beside the one that it replaces.
-- With room for both, a page is seldom tidied. What there is stays as it is; new pages get the room.
ALTER INDEX jobmill.jobs_pkey SET (fillfactor = 50);
ALTER INDEX jobmill.jobs_id SET (fillfactor = 50);
ALTER INDEX jobmill.jobs_newest SET (fillfactor = 50);
