"""Matrix products on the CPU, in tiles that stay in registers."""
