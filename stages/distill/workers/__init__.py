"""The processes that train one student together."""
