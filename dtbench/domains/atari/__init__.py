"""Atari 2600 (Bellemare et al. 2013): four games, seen as 84 x 84 frames, with the data of a DQN or data made here."""
