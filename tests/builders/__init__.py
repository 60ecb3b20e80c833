"""What tests are made of: files, sharded checkpoints, random models, rules to compare with."""
