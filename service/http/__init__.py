"""HTTP on the standard library: the server, its routes and keys, and the client."""
