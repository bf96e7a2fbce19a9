"""What every other part of the domain rests on."""
