"""The parts of `zogy`: cross filters of both frames, and the small correction on anchor stars (section 13)."""
