r"""Addresses that several data sets share."""

DCRNN = "https://raw.githubusercontent.com/liyaguang/DCRNN/master/data/sensor_graph/"
ST_SSDL = "https://raw.githubusercontent.com/Jimmy-7664/ST-SSDL/HEAD/"
ASTGNN = "https://raw.githubusercontent.com/guoshnBJTU/ASTGNN/HEAD/data/"
