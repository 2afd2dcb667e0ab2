"""The Hugging Face Hub: what a model there is, before anything of it is loaded, and fetching it.

Everything else in `merging` reads folders alone. Requests go through huggingface_hub, which knows
the endpoint (HF_ENDPOINT), the cache (HF_HOME) and the token (HF_TOKEN, or `hf auth login`), and
makes none where HF_HUB_OFFLINE is set.
"""
