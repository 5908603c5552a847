"""The sentiment model: training, evaluation and inference, usable without the service."""
