"""The reference application: a small bank of five services with a real database and a real cache.

`domain` decides and does no input or output; `ledger` and `cache` hold the SQL and the Redis commands;
`users`, `accounts`, `transactions`, `notifications` and `edge` are the services; `calls` and `serving` are
the wire between them (HTTP/1.1, HTTP/2 or gRPC); `stores` owns PostgreSQL and Redis; `driver` loads it and
`invariants` judges it. Everything but `domain`, `mix`, `spec` and `stores` needs the extra `meshwise[bank]`.
"""
