"""What is done to a model, as frozen descriptions, and batteries of them."""
