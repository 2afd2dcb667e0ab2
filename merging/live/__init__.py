"""A merged model that answers while its recipe changes: tensors are rewritten where they lie."""
