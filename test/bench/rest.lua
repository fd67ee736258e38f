-- What wrk sends to create a task.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"name":"outside","context":{"id":1},"initiator":"me","reason":"r","source_system":"s"}'
