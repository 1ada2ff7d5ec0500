"""Files with something wrong in them. `# T301:7` at the end of a line is what is found there, and nothing else is.

The number is the column, from 1: the diagnostic's place is the key or value that the user has to change.

Each sample is put below `version: 1` and `name: shop`, and `defaults: {retry: none}` unless it has defaults itself.
"""

from __future__ import annotations

from amqpflow.topology.language.codes import Code

LONG = "q" * 250

SAMPLES: dict[Code, tuple[str, ...]] = {
    Code.DUPLICATE_KEY: (
        """
        queues:
          orders.confirm:
          orders.confirm: {}                          # T005:3
        """,
    ),
    Code.UNSUPPORTED_YAML: (
        """
        queues:
          a: &a {delivery_limit: 5}
          b:
            <<: *a                                    # T006:5
        """,
        """
        queues: !!map {}                              # T006:9
        """,
    ),
    Code.VARIABLE: (
        """
        vhost: ${NOT_SET}                             # T009:8
        """,
    ),
    Code.UNKNOWN_KEY: (
        """
        retry_polices: {}                             # T101:1
        exchanges:
          e: {type: topic, durabel: true}             # T101:20
        queues:
          q:
            limits: {max_len: 5}                      # T101:14
            bindings: [{exchange: e, routing_key: k, key: k}]  # T101:46
        """,
    ),
    Code.MISSING_KEY: (
        """
        retry_policies:
          a: {backoff: {initial: 5s}}                 # T102:7
          b: {delays: [{times: 3}]}                   # T102:16
          c: {engine: native, retries: 5}             # T102:3
          d: {engine: native, delay: {min: 1s}, retries: 5}  # T102:23
          e:
            delays: [5s]
            on: [{park: x}]                           # T102:10
        exchanges:
          x: {durable: true}                          # T102:3
          y: {type: x-delayed-message}                # T102:13
        queues:
          q1: {retry: a}
          q2: {retry: b, bindings: [{routing_key: k}]}  # T102:29
          q3: {retry: c}
          q4: {retry: d}
          q5: {retry: e}
        """,
    ),
    Code.WRONG_TYPE: (
        """
        vhost: [a]                                    # T103:8
        settings: policies
        naming: hello                                 # T103:9
        retry_policies: []                            # T103:17
        exchanges:
          e: topic                                    # T103:6
          f: {type: topic, durable: yes}              # T103:29
          g: {type: topic, arguments: {a: ~}}         # T103:35
        queues:
          q:
            delivery_limit: many                      # T103:21
            single_active_consumer: 1                 # T103:29
            bindings: {exchange: f}                   # T103:15
            parking: {queue: 5}                       # T103:22
            limits: {max_length: 1.5}                 # T103:26
        """,
        """
        retry_policies:
          p: {delays: 5s}                             # T103:15
          r: {delays: [5s], jitter: 10}               # T103:29
          s: {delays: [5s], on: [{errors: ValueError, park: x}]}  # T103:35
          b: {backoff: {initial: 1s, retries: 5, multiplier: x}}  # T103:54
        queues:
          q: {retry: p}
          r: {retry: r}
          s: {retry: s}
          b: {retry: b}
        """,
    ),
    Code.OUT_OF_RANGE: (
        """
        retry_policies:
          a: {delays: [0ms]}                          # T104:16
          b: {delays: [1d, 3651d]}                    # T104:20
          c: {backoff: {initial: 1s, retries: 0}}     # T104:39
          d: {backoff: {initial: 1s, multiplier: 0.5, retries: 3}}  # T104:42
          e: {delays: [{delay: 1s, times: 1001}]}     # T104:35
          f: {delays: [1s], jitter: 51%}              # T104:29
          g: {engine: native, delay: {min: 5s, max: 1s}, retries: 5}  # T104:45
          h: {delays: [5s], on: [{errors: [], park: x}]}  # T104:27
        queues:
          a: {retry: a, max_priority: 256}            # T104:31
          b: {retry: b, max_priority: 0}              # T104:31
          c: {retry: c, limits: {max_length: 0}}      # T104:38
          d: {retry: d, limits: {max_length_bytes: 0B}}  # T104:44
          e: {retry: e, delivery_limit: 0}            # T104:33
          f: {retry: f, delivery_limit: -1}           # T104:33
          g: {retry: g, arguments: {a: 18446744073709551616123}}
          h: {retry: h, arguments: {a: 9223372036854775808}}  # T104:32
        """,
        """
        retry_policies:
          a: {delays: [{delay: 1s, times: 600}, {delay: 2s, times: 600}]}  # T104:7
        queues:
          a: {retry: a}
        """,
    ),
    Code.NOT_A_CHOICE: (
        """
        settings: policy                              # T105:11
        exchanges:
          e: {type: topics}                           # T105:13
        retry_policies:
          p: {engine: tier, delays: [5s]}             # T105:15
        queues:
          q: {type: stream, retry: p}                 # T105:13
          r: {limits: {overflow: drop}}               # T105:26
        """,
    ),
    Code.NOT_A_DURATION: (
        """
        retry_policies:
          p: {delays: [5, 30s, 1.5m, 5 m, P1D]}       # T106:16 T106:24 T106:30 T106:35
        queues:
          q: {retry: p, consumer_timeout: 30}         # T106:35
        """,
    ),
    Code.NOT_A_SIZE: (
        """
        queues:
          q: {limits: {max_length_bytes: 1024}}       # T107:34
          r: {limits: {max_length_bytes: 1G}}         # T107:34
        """,
    ),
    Code.CONFLICTING_KEYS: (
        """
        retry_policies:
          a: {delays: [5s], backoff: {initial: 1s, retries: 3}}  # T108:21
          b: {delays: [5s], retries: 3}               # T108:30
          c: {delays: [5s], delay: {min: 1s, max: 5s}}  # T108:21
          d:
            delays: [5s]
            on:
              - {errors: [ValueError], park: x, delays: [5s]}  # T108:38
        queues:
          a: {retry: a}
          b: {retry: b}
          c: {retry: c, existing: true, external: true}  # T108:43
          d: {retry: d, external: true, owner: shop}  # T108:40
        """,
        """
        settings: arguments
        queues:
          a: {existing: true, dead_letters: park}     # T108:37
          b: {existing: true, dead_letters: keep}
        """,
        """
        settings: arguments
        policy_priority: 5  # T108:18
        queues:
          a: {policy: {message-ttl: 5}}  # T108:7
        """,
    ),
    Code.BAD_NAME: (
        """
        exchanges:
          e*: {type: topic}                           # T201:3
        queues:
          "": {}                                      # T201:3
          "a\\nb": {}                                  # T201:3
          tëst: {}                                    # T201:3
          ok: {parking: {queue: "p!"}}                # T201:25
        """,
        """
        vhost: "a\\0b"                                 # T201:8
        """,
    ),
    Code.NAME_TOO_LONG: (
        f"""
        retry_policies: {{p: {{delays: [5s]}}}}
        exchanges:
          {LONG}ssssss: {{type: topic}}               # T202:3
        queues:
          {LONG}ssssss: {{}}                          # T202:3
          {LONG}: {{}}                                # T202:3
          {LONG[:247]}: {{parking: {{queue: p}}, retry: p}}  # T202:3
          {LONG[:246]}: {{parking: {{queue: p}}, retry: p}}
        """,
        f"""
        queues:
          q:
            arguments:
              a{"ä" * 127}: 1
              b{"ä" * 127}b: 1                          # T202:7
              c: {{d{"ä" * 127}d: 1}}                   # T202:11
            bindings:
              - exchange: amq.headers
                arguments: {{{"e" * 256}: 1}}           # T202:21
        """,
    ),
    Code.RESERVED_NAME: (
        """
        naming: {parking: "amq.{queue}"}
        exchanges:
          amq.mine: {type: topic}                     # T203:3
          amq.topic: {external: true}
        retry_policies:
          none: {delays: [5s]}                        # T203:3
        queues:
          amq.q: {parking: {queue: ok}}               # T203:3
          r:                                          # T203:3
            bindings: [{exchange: amq.topic, routing_key: k}]
        """,
    ),
    Code.NAME_COLLISION: (
        """
        retry_policies: {p: {delays: [5s]}}
        exchanges:
          shop.retry: {type: direct}
          shop.parking: {external: true}
        queues:
          a: {retry: p}
          a.retry.5s: {}
          b: {}
          b.parking: {}
        """,  # where these are reported depends on the order of claims; see test_names.py
    ),
    Code.BAD_TEMPLATE: (
        """
        naming:
          retry: "{queue}.retry"                      # T205:10
          parking: parking                            # T205:12
          retry_exchange: "{topolgy}.retry"           # T205:19 T205:19
          parking_exchange: "{topology}}.parking"     # T205:21
        queues:
          a:
          b:
        """,
    ),
    Code.ROUTING_KEY_TOO_LONG: (
        f"""
        queues:
          a:
            bindings:
              - {{exchange: amq.direct, routing_key: {"é" * 128}}}  # T206:45
              - {{exchange: amq.direct, routing_key: {"e" * 255}}}
        """,
    ),
    Code.UNDEFINED_EXCHANGE: (
        """
        exchanges:
          orders.events: {type: topic, alternate_exchange: orders.unrouted}  # T301:52
        queues:
          a:
            bindings:
              - {exchange: order.events, routing_key: k}  # T301:20
              - {exchange: amq.topics, routing_key: k}  # T301:20
              - {exchange: amq.topic, routing_key: k}
        """,
    ),
    Code.UNDEFINED_POLICY: (
        """
        defaults: {retry: standart}                   # T302:19
        retry_policies:
          standard: {delays: [5s]}
        queues:
          a:
          b: {retry: standard}
          c: {retry: standerd}                        # T302:14
          d: {retry: None}                            # T302:14
        """,
    ),
    Code.UNUSED_POLICY: (
        """
        retry_policies:
          standard: {delays: [5s]}                    # T304:3
        """,
    ),
    Code.NO_RETRY_NAMED: (
        """
        defaults: {}
        retry_policies:
          standard: {delays: [5s]}
        queues:
          a: {retry: standard}
          b:                                          # T305:3
          c: {retry: none}
        """,
    ),
    Code.UNUSABLE_EXCHANGE: (
        """
        exchanges:
          e: {type: direct, alternate_exchange: shop.parking}  # T306:41
        queues:
          a:
            bindings:
              - {exchange: "", routing_key: a}        # T306:20
              - {exchange: shop.retry, routing_key: a}  # T306:20
        """,
    ),
    Code.NO_SCHEDULE: (
        """
        retry_policies:
          a: {jitter: 10%}                            # T401:3
          b:                                          # T401:3
          c:
            delays: []
            on:
              - {errors: [ValueError]}                # T401:9
        queues:
          a: {retry: a}
          b: {retry: b}
          c: {retry: c}
        """,
    ),
    Code.DELAYS_NOT_INCREASING: (
        """
        retry_policies:
          a: {delays: [5s, 30s, 10s]}                 # T402:25
          b: {delays: [5s, 5s]}                       # T402:20
          c: {delays: [1m, {delay: 30s, times: 3}]}   # T402:20
          d: {delays: [{delay: 5s, times: 3}, 6s]}
          e:
            delays: [5s]
            on:
              - {errors: [ValueError], delays: [60s, 1m]}  # T402:46
        queues:
          a: {retry: a}
          b: {retry: b}
          c: {retry: c}
          d: {retry: d}
          e: {retry: e}
        """,
    ),
    Code.GIVES_UP_AT_ONCE: (
        """
        retry_policies:
          a: {delays: [1h], give_up_after: 30m}       # T403:7
          b:
            delays: [1s]
            give_up_after: 30m
            on:
              - {errors: [ValueError], backoff: {initial: 1h, retries: 1}}  # T403:32
          c: {delays: [30m], give_up_after: 30m}
        queues:
          a: {retry: a}
          b: {retry: b}
          c: {retry: c}
        """,
    ),
    Code.STEP_NEVER_TAKEN: (
        """
        retry_policies:
          a: {delays: [1m, 1h], give_up_after: 30m}   # T410:7
          b: {delays: [1m, 29m], give_up_after: 30m}
        queues:
          a: {retry: a}
          b: {retry: b}
        """,
    ),
    Code.NATIVE_CANNOT: (
        """
        retry_policies:
          a:
            engine: native
            delay: {min: 1s, max: 5s}
            retries: 5
            delays: [5s]                              # T404:5
            give_up_after: 1h                         # T404:20
            jitter: 10%                               # T404:13
            on:
              - {errors: [ValueError], delays: [5s]}  # T404:32
              - {errors: [KeyError], park: x}
          b:
            engine: native
            delay: {min: 1s, max: 5s}
            retries: 5
            backoff: {initial: 1s, retries: 5}        # T404:5
        queues:
          a: {retry: a, delivery_limit: 10}           # T404:33
          b: {retry: b, tiers: {type: classic}}       # T404:17
          c: {retry: b, external: true}               # T404:14
        """,
    ),
    Code.NATIVE_NEEDS_QUORUM: (
        """
        retry_policies:
          a: {engine: native, delay: {min: 1s, max: 5s}, retries: 5}
        queues:
          a: {retry: a, type: classic}                # T405:23 T511:23
        """,
    ),
    Code.RULE_UNREACHABLE: (
        """
        retry_policies:
          a:
            delays: [5s]
            on:
              - {errors: [OSError, httpx.ConnectError], park: x}
              - {errors: [TimeoutError, ValueError], delays: [1s]}  # T406:19
              - {errors: [httpx.ConnectError], delays: [1s]}  # T406:19
              - {errors: [UnicodeDecodeError], delays: [1s]}  # T406:19
        queues:
          a: {retry: a}
        """,
    ),
    Code.BAD_ERROR_NAME: (
        """
        retry_policies:
          a:
            delays: [5s]
            on: [{errors: ["Value Error", httpx., "*", httpx.HTTPError], park: x}]  # T407:20 T407:35 T407:43
        queues:
          a: {retry: a}
        """,
    ),
    Code.MANY_TIERS: (
        """
        retry_policies:
          a: {backoff: {initial: 1s, retries: 11, max: 1h}, jitter: 10%}  # T408:3
        queues:
          a: {retry: a}
        """,
    ),
    Code.BAD_BACKOFF: (
        """
        retry_policies:
          a: {backoff: {initial: 1h, max: 30m, retries: 5}}  # T409:35
          b: {backoff: {initial: 1d, multiplier: 100, retries: 5}}  # T409:7
          c: {backoff: {initial: 1d, multiplier: 100, max: 10d, retries: 5}}
        queues:
          a: {retry: a}
          b: {retry: b}
          c: {retry: c}
        """,
    ),
    Code.OVERFLOW: (
        """
        queues:
          a: {limits: {max_length: 5, overflow: drop-head}}  # T501:41
          b: {limits: {overflow: reject-publish-dlx}}  # T501:26
          c: {limits: {overflow: reject-publish}}
          d: {existing: true, dead_letters: keep, limits: {max_length: 5, overflow: reject-publish-dlx}}  # T501:77
          e: {existing: true, dead_letters: park, limits: {overflow: drop-head}}  # T501:62
        """,
        """
        defaults: {retry: none, queue: {limits: {overflow: drop-head}}}  # T501:52
        queues:
          a:
          b:
        """,
    ),
    Code.PRIORITY_RANGE: (
        """
        queues:
          a: {max_priority: 32}                       # T502:21
          b: {max_priority: 31}
        """,
    ),
    Code.NOT_ON_CLASSIC: (
        """
        defaults: {retry: none, queue: {delivery_limit: 10, consumer_timeout: 10m, crash_limit: 3}}
        queues:
          a: {type: classic, delivery_limit: 5}       # T511:13 T503:38
          b: {type: classic, consumer_timeout: 5m}    # T511:13 T503:40
          c: {type: classic, crash_limit: 5}          # T511:13 T503:35
        """,
    ),
    Code.CRASH_LIMIT: (
        """
        defaults: {retry: none}
        queues:
          a: {crash_limit: 51}                        # T513:20
          b: {crash_limit: 4, delivery_limit: 3}      # T513:20
          c: {crash_limit: 3, delivery_limit: 3}
          d: {delivery_limit: 3}
        """,
        """
        defaults: {retry: none, queue: {crash_limit: 9}}  # T513:46
        queues:
          a: {delivery_limit: 8}
        """,
    ),
    Code.NOT_DECLARED_HERE: (
        """
        exchanges:
          e: {external: true, type: topic, durable: true}  # T504:45
        queues:
          a: {existing: true, arguments: {x-foo: 1}}  # T504:23 T604:35
          b: {existing: true, max_priority: 5, single_active_consumer: true}  # T504:37 T504:64
          c: {external: true, owner: o, bindings: [], delivery_limit: 5}  # T504:33 T504:63
          d: {owner: o}                               # T504:14
          e: {dead_letters: keep}                     # T504:21
          f: {external: true, dead_letters: park}     # T504:37
        """,
        """
        queues:
          a: {external: true, policy: {message-ttl: 5}}  # T504:23
        """,
    ),
    Code.PARKING_CONFLICT: (
        """
        queues:
          a: {parking: {queue: p}}
          b: {parking: {queue: p, type: classic}}     # T505:33
        """,
    ),
    Code.CLASSIC_TIERS_WITH_LIMITS: (
        """
        retry_policies: {p: {delays: [5s]}}
        queues:
          a: {retry: p, tiers: {type: classic}, limits: {max_length: 5}}  # T506:31 T511:31
          b: {tiers: {type: classic}, limits: {max_length: 5}}
        """,
    ),
    Code.BINDING: (
        """
        exchanges:
          h: {type: headers}
          t: {type: topic}
          f: {type: fanout}
          x: {type: x-random}
        queues:
          a:
            bindings:
              - {exchange: amq.direct}                # T507:9
              - {exchange: t}                         # T507:9
              - {exchange: t, routing_key: "#.a.#.b.#"}  # T507:36
              - {exchange: t, routing_key: a, arguments: {b: 1}}  # T507:39
              - {exchange: h, arguments: {x-match: some}}  # T507:35
              - {exchange: h, arguments: {x-match: any-with-x}}
              - {exchange: f}
              - {exchange: x}
        """,
    ),
    Code.DUPLICATE_BINDING: (
        """
        queues:
          a:
            bindings:
              - {exchange: amq.topic, routing_key: k}
              - {exchange: amq.topic, routing_key: k}  # T508:9
              - {exchange: amq.headers, arguments: {a: 1}}
              - {exchange: amq.headers, arguments: {a: 2}}
        """,
    ),
    Code.TRANSIENT_EXCHANGE: (
        """
        exchanges:
          e: {type: topic, durable: false}            # T509:29
        """,
    ),
    Code.SHORT_CONSUMER_TIMEOUT: (
        """
        queues:
          a: {consumer_timeout: 59s}                  # T510:25
          b: {consumer_timeout: 1m}
        """,
    ),
    Code.AT_MOST_ONCE: (
        """
        retry_policies: {p: {delays: [5s]}}
        queues:
          a: {type: classic}                          # T511:13
          b: {tiers: {type: classic}, retry: p}       # T511:21
          c: {type: classic, limits: {overflow: drop-head}}  # T511:13 T511:41
          d: {tiers: {type: classic}}
        """,
        """
        defaults: {retry: none, queue: {type: classic}}  # T511:39
        queues:
          a:
          b:
        """,
    ),
    Code.FORGETS: (
        """
        queues:
          a: {type: classic, existing: true, limits: {max_length: 5, overflow: drop-head}}  # T511:13 T512:72
          b: {existing: true, policy: {message-ttl: 5}}  # T512:23
          c: {existing: true, dead_letters: park, policy: {message-ttl: 5}}  # T512:37
          d: {existing: true, dead_letters: keep, policy: {message-ttl: 5}}
          e: {existing: true, dead_letters: keep, limits: {max_length: 5, overflow: drop-head}}
          f: {existing: true, limits: {max_length: 5}}
        """,
    ),
    Code.OWN_ARGUMENT: (
        """
        exchanges:
          e: {type: topic, arguments: {alternate-exchange: f, x-amqpflow-topology: x}}  # T601:32 T601:55
        queues:
          a:
            arguments:
              x-queue-type: quorum                    # T601:7
              x-max-priority: 5                       # T601:7
              x-max-length: 5                         # T601:7
              x-max-length-bytes: 5                   # T601:7
              x-overflow: drop-head                   # T601:7
              x-delivery-limit: 5                     # T601:7
              x-consumer-timeout: 5                   # T601:7
              x-single-active-consumer: true          # T601:7
              x-dead-letter-strategy: at-most-once    # T601:7
              x-delayed-retry-type: all               # T601:7
              x-amqpflow-topology: other              # T601:7
          b: {arguments: {x-dead-letter-exchange: ""}}  # T601:19 T606:19
        """,
        """
        queues:
          a: {policy: {max-length: 5}}                     # T601:16
          b: {policy: {dead-letter-exchange: x}}           # T601:16
          c: {existing: true, policy: {delivery-limit: 5}} # T601:32
          e: {existing: true, policy: {dead-letter-exchange: x}}  # T601:32
          f: {existing: true, dead_letters: keep, policy: {dead-letter-exchange: x, dead-letter-routing-key: y}}
          g: {policy: {consumer-timeout: 5}}          # T601:16
        """,
    ),
    Code.ARGUMENT_NOT_FOR_TYPE: (
        """
        queues:
          a: {arguments: {x-queue-version: 2, x-max-age: 1D}}  # T602:19 T602:39
          b: {type: classic, arguments: {x-quorum-initial-group-size: 3}}  # T511:13 T602:34
          c: {type: classic, arguments: {x-queue-version: 2}}  # T511:13
        """,
        """
        queues:
          a: {policy: {ha-mode: all}}                          # T602:16
          b: {type: classic, policy: {delivery-limit: 5}}      # T511:13 T602:31
        """,
    ),
    Code.LEGACY_ARGUMENT: (
        """
        queues:
          a:
            type: classic                             # T511:11
            arguments:
              x-ha-policy: all                        # T603:7
              x-queue-mode: lazy                      # T603:7
              x-queue-master-locator: min-masters     # T603:7
              x-queue-version: 1                      # T603:7
          b: {arguments: {x-max-in-memory-length: 5}}  # T603:19
        """,
    ),
    Code.UNKNOWN_ARGUMENT: (
        """
        queues:
          a: {arguments: {x-mesage-ttl: 5, note: mine}}  # T604:19
        """,
        """
        queues:
          a: {policy: {message-tll: 5}}  # T604:16
        """,
    ),
    Code.ARGUMENT_VALUE: (
        """
        queues:
          a: {arguments: {x-message-ttl: -1}}         # T605:19
          b: {arguments: {x-message-ttl: 5s}}         # T605:19
          c: {arguments: {x-message-ttl: 315360000001}}  # T605:19
          d: {arguments: {x-quorum-initial-group-size: 0}}  # T605:19
          e: {arguments: {x-queue-leader-locator: nearest}}  # T605:19
          f: {arguments: {x-message-ttl: 315360000000, x-queue-leader-locator: balanced}}
          g: {arguments: {x-message-ttl: true}}       # T605:19
        """,
        """
        queues:
          a: {policy: {message-ttl: soon}}  # T605:16
        """,
    ),
    Code.LOSES_MESSAGES: (
        """
        queues:
          a: {arguments: {x-expires: 60000}}          # T607:19
        """,
        """
        queues:
          a: {policy: {expires: 5}}  # T607:16
        """,
    ),
    Code.TOO_COMPLEX: (
        "queues: {q: {arguments: {a: " + "[" * 40 + "]" * 40 + "}}}  # T007:57\n",
    ),
    Code.SYNTAX: ("queues: [}                 # T004:10\n",),
}  # fmt: skip
