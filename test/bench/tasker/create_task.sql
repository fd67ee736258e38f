\set n random(1, 1000000)
SELECT tasker.create_task('one', jsonb_build_object('n', :n::integer));
