set client_min_messages = warning;
create schema if not exists app;
create schema if not exists ops;
