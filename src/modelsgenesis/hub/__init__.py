"""The registry of cards, download, publishing. The only room that imports `huggingface_hub`."""
