"""What a message of the sealed relay costs the server and the clients of both languages (benchmarks/README.md)."""
