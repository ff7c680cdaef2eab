"""Atari 2600 (Bellemare et al. 2013): four games, as 84 x 84 frames, with data of a DQN or recorded here."""
