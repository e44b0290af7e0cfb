"""What the tests stand on: processes that end with the tests, a gate, stand-in upstreams that record, and a browser."""
