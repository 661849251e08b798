"""Continued pretraining, supervised fine-tuning and both in a row, with LoRA or QLoRA, on TRL, PEFT and accelerate."""
