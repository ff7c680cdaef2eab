"""stub"""


def choose_policies(game, folder):
    pass
