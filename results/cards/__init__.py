"""Model cards of adapters: how one was made, of what data, with which results, and what is not known."""
