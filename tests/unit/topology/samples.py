"""Files with something wrong in them. `# T301` at the end of a line is what is found there, and nothing else is.

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
          orders.confirm: {}                          # T005
        """,
    ),
    Code.UNSUPPORTED_YAML: (
        """
        queues:
          a: &a {delivery_limit: 5}
          b:
            <<: *a                                    # T006
        """,
        """
        queues: !!map {}                              # T006
        """,
    ),
    Code.VARIABLE: (
        """
        vhost: ${NOT_SET}                             # T009
        """,
    ),
    Code.UNKNOWN_KEY: (
        """
        retry_polices: {}                             # T101
        exchanges:
          e: {type: topic, durabel: true}             # T101
        queues:
          q:
            limits: {max_len: 5}                      # T101
            bindings: [{exchange: e, routing_key: k, key: k}]  # T101
        """,
    ),
    Code.MISSING_KEY: (
        """
        retry_policies:
          a: {backoff: {initial: 5s}}                 # T102
          b: {delays: [{times: 3}]}                   # T102
          c: {engine: native, retries: 5}             # T102
          d: {engine: native, delay: {min: 1s}, retries: 5}  # T102
          e:
            delays: [5s]
            on: [{park: x}]                           # T102
        exchanges:
          x: {durable: true}                          # T102
          y: {type: x-delayed-message}                # T102
        queues:
          q1: {retry: a}
          q2: {retry: b, bindings: [{routing_key: k}]}  # T102
          q3: {retry: c}
          q4: {retry: d}
          q5: {retry: e}
        """,
    ),
    Code.WRONG_TYPE: (
        """
        vhost: [a]                                    # T103
        settings: policies
        naming: hello                                 # T103
        retry_policies: []                            # T103
        exchanges:
          e: topic                                    # T103
          f: {type: topic, durable: yes}              # T103
          g: {type: topic, arguments: {a: ~}}         # T103
        queues:
          q:
            delivery_limit: many                      # T103
            single_active_consumer: 1                 # T103
            bindings: {exchange: f}                   # T103
            parking: {queue: 5}                       # T103
            limits: {max_length: 1.5}                 # T103
        """,
        """
        retry_policies:
          p: {delays: 5s}                             # T103
          r: {delays: [5s], jitter: 10}               # T103
          s: {delays: [5s], on: [{errors: ValueError, park: x}]}  # T103
          b: {backoff: {initial: 1s, retries: 5, multiplier: x}}  # T103
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
          a: {delays: [0ms]}                          # T104
          b: {delays: [1d, 3651d]}                    # T104
          c: {backoff: {initial: 1s, retries: 0}}     # T104
          d: {backoff: {initial: 1s, multiplier: 0.5, retries: 3}}  # T104
          e: {delays: [{delay: 1s, times: 1001}]}     # T104
          f: {delays: [1s], jitter: 51%}              # T104
          g: {engine: native, delay: {min: 5s, max: 1s}, retries: 5}  # T104
          h: {delays: [5s], on: [{errors: [], park: x}]}  # T104
        queues:
          a: {retry: a, max_priority: 256}            # T104
          b: {retry: b, max_priority: 0}              # T104
          c: {retry: c, limits: {max_length: 0}}      # T104
          d: {retry: d, limits: {max_length_bytes: 0B}}  # T104
          e: {retry: e, delivery_limit: 0}            # T104
          f: {retry: f, delivery_limit: -1}           # T104
          g: {retry: g, arguments: {a: 18446744073709551616123}}
          h: {retry: h, arguments: {a: 9223372036854775808}}  # T104
        """,
        """
        retry_policies:
          a: {delays: [{delay: 1s, times: 600}, {delay: 2s, times: 600}]}  # T104
        queues:
          a: {retry: a}
        """,
    ),
    Code.NOT_A_CHOICE: (
        """
        settings: policy                              # T105
        exchanges:
          e: {type: topics}                           # T105
        retry_policies:
          p: {engine: tier, delays: [5s]}             # T105
        queues:
          q: {type: stream, retry: p}                 # T105
          r: {limits: {overflow: drop}}               # T105
        """,
    ),
    Code.NOT_A_DURATION: (
        """
        retry_policies:
          p: {delays: [5, 30s, 1.5m, 5 m, P1D]}       # T106 T106 T106 T106
        queues:
          q: {retry: p, consumer_timeout: 30}         # T106
        """,
    ),
    Code.NOT_A_SIZE: (
        """
        queues:
          q: {limits: {max_length_bytes: 1024}}       # T107
          r: {limits: {max_length_bytes: 1G}}         # T107
        """,
    ),
    Code.CONFLICTING_KEYS: (
        """
        retry_policies:
          a: {delays: [5s], backoff: {initial: 1s, retries: 3}}  # T108
          b: {delays: [5s], retries: 3}               # T108
          c: {delays: [5s], delay: {min: 1s, max: 5s}}  # T108
          d:
            delays: [5s]
            on:
              - {errors: [ValueError], park: x, delays: [5s]}  # T108
        queues:
          a: {retry: a}
          b: {retry: b}
          c: {retry: c, existing: true, external: true}  # T108
          d: {retry: d, external: true, owner: shop}  # T108
        """,
        """
        settings: arguments
        queues:
          a: {existing: true, dead_letters: park}     # T108
          b: {existing: true, dead_letters: keep}
        """,
        """
        settings: arguments
        policy_priority: 5  # T108
        queues:
          a: {policy: {message-ttl: 5}}  # T108
        """,
    ),
    Code.BAD_NAME: (
        """
        exchanges:
          e*: {type: topic}                           # T201
        queues:
          "": {}                                      # T201
          "a\\nb": {}                                  # T201
          tëst: {}                                    # T201
          ok: {parking: {queue: "p!"}}                # T201
        """,
        """
        vhost: "a\\0b"                                 # T201
        """,
    ),
    Code.NAME_TOO_LONG: (
        f"""
        retry_policies: {{p: {{delays: [5s]}}}}
        exchanges:
          {LONG}ssssss: {{type: topic}}               # T202
        queues:
          {LONG}ssssss: {{}}                          # T202
          {LONG}: {{}}                                # T202
          {LONG[:247]}: {{parking: {{queue: p}}, retry: p}}  # T202
          {LONG[:246]}: {{parking: {{queue: p}}, retry: p}}
        """,
        f"""
        queues:
          q:
            arguments:
              a{"ä" * 127}: 1
              b{"ä" * 127}b: 1                          # T202
              c: {{d{"ä" * 127}d: 1}}                   # T202
            bindings:
              - exchange: amq.headers
                arguments: {{{"e" * 256}: 1}}           # T202
        """,
    ),
    Code.RESERVED_NAME: (
        """
        naming: {parking: "amq.{queue}"}
        exchanges:
          amq.mine: {type: topic}                     # T203
          amq.topic: {external: true}
        retry_policies:
          none: {delays: [5s]}                        # T203
        queues:
          amq.q: {parking: {queue: ok}}               # T203
          r:                                          # T203
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
          retry: "{queue}.retry"                      # T205
          parking: parking                            # T205
          retry_exchange: "{topolgy}.retry"           # T205 T205
          parking_exchange: "{topology}}.parking"     # T205
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
              - {{exchange: amq.direct, routing_key: {"é" * 128}}}  # T206
              - {{exchange: amq.direct, routing_key: {"e" * 255}}}
        """,
    ),
    Code.UNDEFINED_EXCHANGE: (
        """
        exchanges:
          orders.events: {type: topic, alternate_exchange: orders.unrouted}  # T301
        queues:
          a:
            bindings:
              - {exchange: order.events, routing_key: k}  # T301
              - {exchange: amq.topics, routing_key: k}  # T301
              - {exchange: amq.topic, routing_key: k}
        """,
    ),
    Code.UNDEFINED_POLICY: (
        """
        defaults: {retry: standart}                   # T302
        retry_policies:
          standard: {delays: [5s]}
        queues:
          a:
          b: {retry: standard}
          c: {retry: standerd}                        # T302
          d: {retry: None}                            # T302
        """,
    ),
    Code.UNUSED_POLICY: (
        """
        retry_policies:
          standard: {delays: [5s]}                    # T304
        """,
    ),
    Code.NO_RETRY_NAMED: (
        """
        defaults: {}
        retry_policies:
          standard: {delays: [5s]}
        queues:
          a: {retry: standard}
          b:                                          # T305
          c: {retry: none}
        """,
    ),
    Code.UNUSABLE_EXCHANGE: (
        """
        exchanges:
          e: {type: direct, alternate_exchange: shop.parking}  # T306
        queues:
          a:
            bindings:
              - {exchange: "", routing_key: a}        # T306
              - {exchange: shop.retry, routing_key: a}  # T306
        """,
    ),
    Code.NO_SCHEDULE: (
        """
        retry_policies:
          a: {jitter: 10%}                            # T401
          b:                                          # T401
          c:
            delays: []
            on:
              - {errors: [ValueError]}                # T401
        queues:
          a: {retry: a}
          b: {retry: b}
          c: {retry: c}
        """,
    ),
    Code.DELAYS_NOT_INCREASING: (
        """
        retry_policies:
          a: {delays: [5s, 30s, 10s]}                 # T402
          b: {delays: [5s, 5s]}                       # T402
          c: {delays: [1m, {delay: 30s, times: 3}]}   # T402
          d: {delays: [{delay: 5s, times: 3}, 6s]}
          e:
            delays: [5s]
            on:
              - {errors: [ValueError], delays: [60s, 1m]}  # T402
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
          a: {delays: [1h], give_up_after: 30m}       # T403
          b:
            delays: [1s]
            give_up_after: 30m
            on:
              - {errors: [ValueError], backoff: {initial: 1h, retries: 1}}  # T403
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
          a: {delays: [1m, 1h], give_up_after: 30m}   # T410
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
            delays: [5s]                              # T404
            give_up_after: 1h                         # T404
            jitter: 10%                               # T404
            on:
              - {errors: [ValueError], delays: [5s]}  # T404
              - {errors: [KeyError], park: x}
          b:
            engine: native
            delay: {min: 1s, max: 5s}
            retries: 5
            backoff: {initial: 1s, retries: 5}        # T404
        queues:
          a: {retry: a, delivery_limit: 10}           # T404
          b: {retry: b, tiers: {type: classic}}       # T404
          c: {retry: b, external: true}               # T404
        """,
    ),
    Code.NATIVE_NEEDS_QUORUM: (
        """
        retry_policies:
          a: {engine: native, delay: {min: 1s, max: 5s}, retries: 5}
        queues:
          a: {retry: a, type: classic}                # T405 T511
        """,
    ),
    Code.RULE_UNREACHABLE: (
        """
        retry_policies:
          a:
            delays: [5s]
            on:
              - {errors: [OSError, httpx.ConnectError], park: x}
              - {errors: [TimeoutError, ValueError], delays: [1s]}  # T406
              - {errors: [httpx.ConnectError], delays: [1s]}  # T406
              - {errors: [UnicodeDecodeError], delays: [1s]}  # T406
        queues:
          a: {retry: a}
        """,
    ),
    Code.BAD_ERROR_NAME: (
        """
        retry_policies:
          a: {delays: [5s], on: [{errors: ["Value Error", httpx., "*", httpx.HTTPError], park: x}]}  # T407 T407 T407
        queues:
          a: {retry: a}
        """,
    ),
    Code.MANY_TIERS: (
        """
        retry_policies:
          a: {backoff: {initial: 1s, retries: 11, max: 1h}, jitter: 10%}  # T408
        queues:
          a: {retry: a}
        """,
    ),
    Code.BAD_BACKOFF: (
        """
        retry_policies:
          a: {backoff: {initial: 1h, max: 30m, retries: 5}}  # T409
          b: {backoff: {initial: 1d, multiplier: 100, retries: 5}}  # T409
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
          a: {limits: {max_length: 5, overflow: drop-head}}  # T501
          b: {limits: {overflow: reject-publish-dlx}}  # T501
          c: {limits: {overflow: reject-publish}}
          d: {existing: true, dead_letters: keep, limits: {max_length: 5, overflow: reject-publish-dlx}}  # T501
          e: {existing: true, dead_letters: park, limits: {overflow: drop-head}}  # T501
        """,
        """
        defaults: {retry: none, queue: {limits: {overflow: drop-head}}}  # T501
        queues:
          a:
          b:
        """,
    ),
    Code.PRIORITY_RANGE: (
        """
        queues:
          a: {max_priority: 32}                       # T502
          b: {max_priority: 31}
        """,
    ),
    Code.NOT_ON_CLASSIC: (
        """
        defaults: {retry: none, queue: {delivery_limit: 10, consumer_timeout: 10m, crash_limit: 3}}
        queues:
          a: {type: classic, delivery_limit: 5}       # T511 T503
          b: {type: classic, consumer_timeout: 5m}    # T511 T503
          c: {type: classic, crash_limit: 5}          # T511 T503
        """,
    ),
    Code.CRASH_LIMIT: (
        """
        defaults: {retry: none}
        queues:
          a: {crash_limit: 51}                        # T513
          b: {crash_limit: 4, delivery_limit: 3}      # T513
          c: {crash_limit: 3, delivery_limit: 3}
          d: {delivery_limit: 3}
        """,
        """
        defaults: {retry: none, queue: {crash_limit: 9}}  # T513
        queues:
          a: {delivery_limit: 8}
        """,
    ),
    Code.NOT_DECLARED_HERE: (
        """
        exchanges:
          e: {external: true, type: topic, durable: true}  # T504
        queues:
          a: {existing: true, arguments: {x-foo: 1}}  # T504 T604
          b: {existing: true, max_priority: 5, single_active_consumer: true}  # T504 T504
          c: {external: true, owner: o, bindings: [], delivery_limit: 5}  # T504 T504
          d: {owner: o}                               # T504
          e: {dead_letters: keep}                     # T504
          f: {external: true, dead_letters: park}     # T504
        """,
        """
        queues:
          a: {external: true, policy: {message-ttl: 5}}  # T504
        """,
    ),
    Code.PARKING_CONFLICT: (
        """
        queues:
          a: {parking: {queue: p}}
          b: {parking: {queue: p, type: classic}}     # T505
        """,
    ),
    Code.CLASSIC_TIERS_WITH_LIMITS: (
        """
        retry_policies: {p: {delays: [5s]}}
        queues:
          a: {retry: p, tiers: {type: classic}, limits: {max_length: 5}}  # T506 T511
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
              - {exchange: amq.direct}                # T507
              - {exchange: t}                         # T507
              - {exchange: t, routing_key: "#.a.#.b.#"}  # T507
              - {exchange: t, routing_key: a, arguments: {b: 1}}  # T507
              - {exchange: h, arguments: {x-match: some}}  # T507
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
              - {exchange: amq.topic, routing_key: k}  # T508
              - {exchange: amq.headers, arguments: {a: 1}}
              - {exchange: amq.headers, arguments: {a: 2}}
        """,
    ),
    Code.TRANSIENT_EXCHANGE: (
        """
        exchanges:
          e: {type: topic, durable: false}            # T509
        """,
    ),
    Code.SHORT_CONSUMER_TIMEOUT: (
        """
        queues:
          a: {consumer_timeout: 59s}                  # T510
          b: {consumer_timeout: 1m}
        """,
    ),
    Code.AT_MOST_ONCE: (
        """
        retry_policies: {p: {delays: [5s]}}
        queues:
          a: {type: classic}                          # T511
          b: {tiers: {type: classic}, retry: p}       # T511
          c: {type: classic, limits: {overflow: drop-head}}  # T511 T511
          d: {tiers: {type: classic}}
        """,
        """
        defaults: {retry: none, queue: {type: classic}}  # T511
        queues:
          a:
          b:
        """,
    ),
    Code.FORGETS: (
        """
        queues:
          a: {type: classic, existing: true, limits: {max_length: 5, overflow: drop-head}}  # T511 T512
          b: {existing: true, policy: {message-ttl: 5}}  # T512
          c: {existing: true, dead_letters: park, policy: {message-ttl: 5}}  # T512
          d: {existing: true, dead_letters: keep, policy: {message-ttl: 5}}
          e: {existing: true, dead_letters: keep, limits: {max_length: 5, overflow: drop-head}}
          f: {existing: true, limits: {max_length: 5}}
        """,
    ),
    Code.OWN_ARGUMENT: (
        """
        exchanges:
          e: {type: topic, arguments: {alternate-exchange: f, x-amqpflow-topology: x}}  # T601 T601
        queues:
          a:
            arguments:
              x-queue-type: quorum                    # T601
              x-max-priority: 5                       # T601
              x-max-length: 5                         # T601
              x-max-length-bytes: 5                   # T601
              x-overflow: drop-head                   # T601
              x-delivery-limit: 5                     # T601
              x-consumer-timeout: 5                   # T601
              x-single-active-consumer: true          # T601
              x-dead-letter-strategy: at-most-once    # T601
              x-delayed-retry-type: all               # T601
              x-amqpflow-topology: other              # T601
          b: {arguments: {x-dead-letter-exchange: ""}}  # T601 T606
        """,
        """
        queues:
          a: {policy: {max-length: 5}}                     # T601
          b: {policy: {dead-letter-exchange: x}}           # T601
          c: {existing: true, policy: {delivery-limit: 5}} # T601
          e: {existing: true, policy: {dead-letter-exchange: x}}  # T601
          f: {existing: true, dead_letters: keep, policy: {dead-letter-exchange: x, dead-letter-routing-key: y}}
          g: {policy: {consumer-timeout: 5}}          # T601
        """,
    ),
    Code.ARGUMENT_NOT_FOR_TYPE: (
        """
        queues:
          a: {arguments: {x-queue-version: 2, x-max-age: 1D}}  # T602 T602
          b: {type: classic, arguments: {x-quorum-initial-group-size: 3}}  # T511 T602
          c: {type: classic, arguments: {x-queue-version: 2}}  # T511
        """,
        """
        queues:
          a: {policy: {ha-mode: all}}                          # T602
          b: {type: classic, policy: {delivery-limit: 5}}      # T511 T602
        """,
    ),
    Code.LEGACY_ARGUMENT: (
        """
        queues:
          a:
            type: classic                             # T511
            arguments:
              x-ha-policy: all                        # T603
              x-queue-mode: lazy                      # T603
              x-queue-master-locator: min-masters     # T603
              x-queue-version: 1                      # T603
          b: {arguments: {x-max-in-memory-length: 5}}  # T603
        """,
    ),
    Code.UNKNOWN_ARGUMENT: (
        """
        queues:
          a: {arguments: {x-mesage-ttl: 5, note: mine}}  # T604
        """,
        """
        queues:
          a: {policy: {message-tll: 5}}  # T604
        """,
    ),
    Code.ARGUMENT_VALUE: (
        """
        queues:
          a: {arguments: {x-message-ttl: -1}}         # T605
          b: {arguments: {x-message-ttl: 5s}}         # T605
          c: {arguments: {x-message-ttl: 315360000001}}  # T605
          d: {arguments: {x-quorum-initial-group-size: 0}}  # T605
          e: {arguments: {x-queue-leader-locator: nearest}}  # T605
          f: {arguments: {x-message-ttl: 315360000000, x-queue-leader-locator: balanced}}
          g: {arguments: {x-message-ttl: true}}       # T605
        """,
        """
        queues:
          a: {policy: {message-ttl: soon}}  # T605
        """,
    ),
    Code.LOSES_MESSAGES: (
        """
        queues:
          a: {arguments: {x-expires: 60000}}          # T607
        """,
        """
        queues:
          a: {policy: {expires: 5}}  # T607
        """,
    ),
    Code.TOO_COMPLEX: (
        "queues: {q: {arguments: {a: " + "[" * 40 + "]" * 40 + "}}}  # T007\n",
    ),
    Code.SYNTAX: ("queues: [}                 # T004\n",),
}  # fmt: skip
