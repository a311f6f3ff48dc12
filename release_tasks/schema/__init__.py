"""The DDL pack: its order and lock, its proof on a scratch server, how it is applied, what drifts from it."""
