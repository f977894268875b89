"""The operator of the EditRun resource: takes a run through its stages on a cluster, and survives restarts of itself."""
