"""Another embedding version beside the one that is served: built, compared, switched to, and gone back from.

Or the served one made again in its place (`in_place`).

    <home>/registry/second.json    what is being built or stands ready, with its progress; hours write it too
    <home>/registry/live.json      what is served (see `sosie.registry`); its rename is the moment of a switch
    <home>/registry/switch.lock    shared by the steps of hours, held alone by a switch

The order of a switch, and what a crash after each leaves:

1. the second collections are brought in step with the lake → nothing has changed for anybody
2. every live listing is put into a change set of the switch → the next hour decides all pairs again by the old models
3. live.json is renamed into place → the new models are live; whoever opens the index next moves its aliases after it
4. the aliases move → the next hour takes the change set over and decides all pairs again by the new models
5. pairs, clusters and decisions are made again, the change set goes → done
"""

from sosie.rebuild.build import build
from sosie.rebuild.comparison import compare
from sosie.rebuild.inplace import in_place
from sosie.rebuild.switch import serve
from sosie.rebuild.target import PACKAGED, Target, abandon, progress, second

__all__ = ["PACKAGED", "Target", "abandon", "build", "compare", "in_place", "progress", "second", "serve"]
