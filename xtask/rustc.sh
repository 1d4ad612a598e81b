#!/bin/sh
# What this is for: see rustc-workspace-wrapper in .cargo/config.toml.
exec "$@"
