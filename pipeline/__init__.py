"""What every stage shares: configuration, data sets, views, the store, the cluster."""
