"""The fixed system ``shop``: 15 instrumented services; a database, a cache and a broker that only callers see."""

from __future__ import annotations

from simulator.model import Call, Journey, LogLine, Operation, Service, Step, Topology

INFO, DEBUG, WARN = 9, 5, 13


def _sql(verb: str, table: str, *, timeout_ms: float = 800.0, probability: float = 1.0) -> Call:
    return Call("postgres", f"{verb} {table}", timeout_ms=timeout_ms, probability=probability)


def _redis(command: str, *, swallow: bool = False, probability: float = 1.0) -> Call:
    return Call("redis", command, timeout_ms=250.0, swallow=swallow, probability=probability)


def _log(template: str, severity: int = INFO, probability: float = 1.0) -> LogLine:
    return LogLine(severity, template, probability)


def _edge() -> list[Service]:
    """The gateway and the page renderer behind it."""
    pages = {
        "GET /": ("GET /home", 1.4),
        "GET /product/{id}": ("GET /pages/product/{id}", 1.2),
        "GET /search": ("GET /pages/search", 1.2),
        "POST /cart": ("POST /pages/cart", 1.1),
        "GET /cart": ("GET /pages/cart", 1.1),
        "POST /checkout": ("POST /pages/checkout", 1.6),
        "POST /login": ("POST /pages/login", 1.1),
    }
    gateway = tuple(
        Operation(
            name,
            ms,
            steps=((Call("frontend", page, timeout_ms=6000),),),
            logs=(_log(f'{{ip}} "{name}" {{dur}}ms rid={{uuid}}', probability=0.5),),
        )
        for name, (page, ms) in pages.items()
    )
    verify = Call("auth", "Verify", timeout_ms=300, retries=1)
    ads = Call("ads", "GetAds", timeout_ms=200, probability=0.7, swallow=True)
    recommend = Call("recommendation", "List", timeout_ms=500, swallow=True)

    def page(name: str, ms: float, *steps: Step, line: str) -> Operation:
        return Operation(name, ms, steps=steps, internal="render", logs=(_log(line, probability=0.6),))

    rendered = (
        page(
            "GET /home",
            6.0,
            (verify,),
            (Call("catalog", "ListProducts", retries=1), Call("cart", "GetCart", swallow=True), ads),
            line="home page for user={id} rendered in {dur} ms",
        ),
        page(
            "GET /pages/product/{id}",
            5.0,
            (Call("catalog", "GetProduct", retries=1), Call("pricing", "Quote", retries=1), recommend),
            (ads,),
            line="product page sku={sku} user={id} took {dur} ms",
        ),
        page(
            "GET /pages/search",
            4.0,
            (Call("search", "Query", timeout_ms=1500),),
            (Call("pricing", "Quote", timeout_ms=600, swallow=True),),
            line="search q={word} returned {n} hits",
        ),
        page("POST /pages/cart", 3.0, (verify,), (Call("cart", "AddItem", retries=1),), line="cart add sku={sku}"),
        page(
            "GET /pages/cart",
            4.0,
            (verify,),
            (Call("cart", "GetCart", retries=1),),
            (Call("pricing", "Quote", retries=1), Call("shipping", "Estimate", timeout_ms=600, swallow=True)),
            line="cart page user={id} items={n}",
        ),
        page(
            "POST /pages/checkout",
            5.0,
            (verify,),
            (Call("checkout", "PlaceOrder", timeout_ms=5000),),
            line="order {id} accepted for user={id} total={amount}",
        ),
        page("POST /pages/login", 3.0, (Call("auth", "Login", timeout_ms=1500),), line="login user={id} from {ip}"),
    )
    return [
        Service("gateway", "http", gateway, "native", 2, 256, cpu_share=0.8, memory_mb=90, port=8443, startup_s=1.5),
        Service("frontend", "http", rendered, "nodejs", 3, 128, cpu_share=0.75, memory_mb=210, port=3000),
    ]


def _browse() -> list[Service]:
    """What pages are made of."""
    catalog = (
        Operation(
            "ListProducts",
            4.0,
            steps=((_redis("GET", swallow=True),), (_sql("SELECT", "products", probability=0.25),)),
            logs=(_log("listed {n} products in {dur} ms"), _log("cache miss key=catalog:list:{n}", DEBUG, 0.25)),
        ),
        Operation(
            "GetProduct",
            2.2,
            steps=((_redis("GET", swallow=True),), (_sql("SELECT", "products", probability=0.2),)),
            not_found_rate=0.003,
            logs=(_log("product {sku} served", probability=0.3),),
        ),
    )
    search = (
        Operation(
            "Query",
            14.0,
            0.55,
            steps=((Call("catalog", "ListProducts", retries=1), _sql("SELECT", "search_index", timeout_ms=1200)),),
            internal="rank results",
            logs=(_log("query '{word} {word}' matched {n} documents in {dur} ms"),),
        ),
    )
    recommendation = (
        Operation(
            "List",
            9.0,
            0.45,
            steps=((_redis("MGET", swallow=True),), (Call("catalog", "GetProduct", probability=0.6),)),
            logs=(_log("recommend user={id} candidates={n} model=v{n}", probability=0.5),),
        ),
        Operation("train on orders", 25.0, continues_trace=False, logs=(_log("consumed {n} order events"),)),
    )
    pricing = (Operation("Quote", 2.5, logs=(_log("quote sku={sku} price={amount}", DEBUG, 0.4),)),)
    ads = (
        Operation(
            "GetAds",
            3.5,
            0.5,
            error_rate=0.002,
            logs=(_log("received ad request (context_words=[{word}])", INFO, 0.8),),
        ),
    )
    return [
        Service("catalog", "grpc", catalog, "go", 3, 64, memory_mb=110, port=3550),
        Service("search", "http", search, "jvm", 2, 24, memory_mb=330, memory_limit_mb=768, span_covers_queue=False),
        Service("recommendation", "grpc", recommendation, "python", 2, 12, cpu_share=0.85, span_covers_queue=False),
        Service("pricing", "grpc", pricing, "go", 2, 64, memory_mb=60),
        Service("ads", "grpc", ads, "jvm", 1, 16, memory_mb=260, port=9555, correlated_logs=False),
    ]


def _orders() -> list[Service]:
    """What happens between cart and parcel."""
    cart = (
        Operation("GetCart", 1.2, steps=((_redis("HGETALL"),),), logs=(_log("GetCart user={id}", probability=0.5),)),
        Operation(
            "AddItem",
            1.6,
            steps=((Call("inventory", "Check", retries=1, timeout_ms=500),), (_redis("HSET"),)),
            logs=(_log("AddItem user={id} sku={sku} quantity={n}"),),
        ),
        Operation("EmptyCart", 1.0, steps=((_redis("DEL"),),), logs=(_log("EmptyCart user={id}"),)),
    )
    checkout = (
        Operation(
            "PlaceOrder",
            7.0,
            steps=(
                (Call("cart", "GetCart", retries=1),),
                (Call("pricing", "Quote", retries=1), Call("shipping", "Estimate", timeout_ms=800)),
                (Call("inventory", "Reserve", timeout_ms=1200, retries=1),),
                (Call("fraud", "Score", timeout_ms=600, swallow=True),),
                (Call("payment", "POST /charge", timeout_ms=3000),),
                (_sql("INSERT", "orders"),),
                (Call("kafka", "orders", timeout_ms=1000), Call("cart", "EmptyCart", swallow=True)),
            ),
            internal="assemble order",
            logs=(_log("placing order user={id} currency={word}"), _log("order {uuid} placed, total {amount}")),
        ),
    )
    inventory = (
        Operation(
            "Check", 1.8, steps=((_sql("SELECT", "stock"),),), logs=(_log("stock sku={sku} left={n}", DEBUG, 0.5),)
        ),
        Operation(
            "Reserve",
            3.5,
            steps=((_sql("SELECT", "stock"),), (_sql("UPDATE", "stock"),)),
            logs=(_log("reserved {n} of sku={sku} for order {id}"),),
        ),
    )
    payment = (
        Operation(
            "POST /charge",
            42.0,
            0.3,
            steps=((_sql("INSERT", "payments"),),),
            error_rate=0.001,
            internal="sign request",
            logs=(_log("charge authorised order={id} amount={amount} card=****{n} provider={word}"),),
        ),
    )
    fraud = (
        Operation(
            "Score",
            11.0,
            0.4,
            steps=((_redis("ZRANGE", swallow=True),),),
            logs=(_log("fraud score={n} order={id} features={n}"), _log("manual review order={id}", WARN, 0.01)),
        ),
    )
    shipping = (
        Operation("Estimate", 3.0, logs=(_log("estimate zip={n} cost={amount}", probability=0.6),)),
        Operation(
            "shipments",
            18.0,
            0.5,
            steps=((_sql("INSERT", "shipments"),),),
            logs=(_log("parcel booked order={id} carrier={word} label={uuid}"),),
        ),
    )
    notification = (
        Operation(
            "notify customer",
            28.0,
            0.5,
            steps=((Call("auth", "GetProfile", timeout_ms=800, retries=2),),),
            logs=(_log("mail order-confirmation sent to user={id} via {word} in {dur} ms"),),
        ),
    )
    auth = (
        Operation("Verify", 0.9, steps=((_redis("GET"),),), logs=(_log("token ok user={id}", DEBUG, 0.2),)),
        Operation(
            "Login",
            38.0,
            0.25,
            steps=((_sql("SELECT", "users"),), (_redis("SET"),)),
            not_found_rate=0.02,
            logs=(_log("login user={id} from {ip}"), _log("wrong password user={id} from {ip}", WARN, 0.03)),
        ),
        Operation("GetProfile", 1.5, steps=((_sql("SELECT", "users"),),)),
    )
    return [
        Service("cart", "grpc", cart, "go", 2, 64, memory_mb=70, port=7070),
        Service("checkout", "grpc", checkout, "go", 2, 64, memory_mb=95, port=5050),
        Service("inventory", "grpc", inventory, "jvm", 2, 24, memory_mb=310, memory_limit_mb=640),
        Service("payment", "http", payment, "jvm", 2, 24, 256, 0.35, 290, 640, span_covers_queue=False),
        Service("fraud", "grpc", fraud, "python", 1, 12, cpu_share=0.9, memory_mb=240, correlated_logs=False),
        Service("shipping", "grpc", shipping, "nodejs", 2, 32, memory_mb=130),
        Service("notification", "grpc", notification, "python", 1, 8, 5000, 0.4, 120),
        Service("auth", "grpc", auth, "go", 2, 64, cpu_share=0.8, memory_mb=80),
    ]


def _stores() -> list[Service]:
    """Not instrumented: their callers' client spans, their metrics and their own logs are all there is."""
    tables = ("products", "search_index", "orders", "stock", "payments", "shipments", "users")
    cost = {"SELECT search_index": 9.0, "SELECT products": 3.5, "INSERT orders": 2.4, "UPDATE stock": 2.8}
    verbs = {"SELECT": 1.2, "INSERT": 1.9, "UPDATE": 2.0}
    queries = tuple(
        Operation(f"{verb} {table}", cost.get(f"{verb} {table}", ms), 0.5, error_rate=0.00005)
        for verb, ms in verbs.items()
        for table in tables
    )
    commands = tuple(
        Operation(name, 0.25, 0.4, error_rate=0.0)
        for name in ("GET", "SET", "MGET", "HGETALL", "HSET", "DEL", "ZRANGE")
    )
    consumers = (("notification", "notify customer"), ("shipping", "shipments"), ("recommendation", "train on orders"))
    orders = Operation("orders", 1.5, 0.5, error_rate=0.0, consumers=consumers)
    return [
        Service("postgres", "db", queries, "native", 1, 48, 400, 0.5, 900, 2048, "postgresql", 5432, startup_s=8),
        Service("redis", "db", commands, "native", 1, 64, 2000, 0.8, 220, 512, "redis", 6379, startup_s=2),
        Service("kafka", "messaging", (orders,), "jvm", 1, 32, 2000, 0.4, 700, 1536, "kafka", 9092, startup_s=10),
    ]


def shop() -> Topology:
    """The fixed shop: browsing, buying, searching and bouncing users.

    >>> len([s for s in shop().services if s.instrumented])
    15
    """
    home, product, search = "GET /", "GET /product/{id}", "GET /search"
    journeys = (
        Journey("browse", 4.0, (home, product, product, product)),
        Journey("search", 3.0, (home, search, product, search, product)),
        Journey("buy", 2.0, ("POST /login", home, product, "POST /cart", "GET /cart", "POST /checkout"), 4.0),
        Journey("bounce", 2.0, (home,)),
    )
    return Topology((*_edge(), *_browse(), *_orders(), *_stores()), "gateway", journeys)
