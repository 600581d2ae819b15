def copy(value):
    if isinstance(value, (list, dict, set, bytearray)):
        return type(value)(value)
    if hasattr(value, "__copy__"):
        return value.__copy__()
    if not hasattr(value, "__dict__") or isinstance(value, type):
        return value
    new = object.__new__(type(value))
    for name, one in value.__dict__.items():
        setattr(new, name, one)
    return new


def deepcopy(value, memo=None):
    memo = {} if memo is None else memo
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, (list, set)):
        new = memo[id(value)] = type(value)()
        for one in value:
            (new.append if isinstance(value, list) else new.add)(deepcopy(one, memo))
    elif isinstance(value, dict):
        new = memo[id(value)] = type(value)()
        for key, one in value.items():
            new[deepcopy(key, memo)] = deepcopy(one, memo)
    elif type(value) is tuple:
        new = tuple([deepcopy(one, memo) for one in value])
    elif hasattr(value, "__deepcopy__"):
        new = value.__deepcopy__(memo)
    else:
        new = memo[id(value)] = copy(value)
        if new is not value and hasattr(new, "__dict__"):
            for name, one in new.__dict__.items():
                setattr(new, name, deepcopy(one, memo))
    return new
