"""Many workers on Ray: how many and where, who takes which shard, and who is waited for."""
