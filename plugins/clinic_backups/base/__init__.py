"""What every other folder uses: errors, words, the model, settings, connections, the clock."""
