"""For tests of jobmill, of its users' jobs and of stores: virtual time, faults, invariants."""
