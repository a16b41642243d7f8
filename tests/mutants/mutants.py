"""Faults for `make mutants`: what each replaces, and the test that must find it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """A fault in one file."""

    name: str
    file: str
    old: str
    """What is replaced; once in the file."""
    new: str
    program: str
    """The test program."""
    tests: str = "*"
    """Of its tests, as gtest filters them."""
    also: tuple[str, ...] = ()
    """Programs that the test starts."""


MUTANTS = (
    Mutant(
        "settled before its jobs ran",
        "src/tracker.cpp",
        "  const delivery_token token = d.token;\n  const std::shared_ptr<work> w = start(",
        "  const delivery_token token = d.token;\n"
        "  pending early;\n"
        "  early.queue = &queue;\n"
        "  early.plan.what.token = token;\n"
        "  settle(std::move(early));\n"
        "  const std::shared_ptr<work> w = start(",
        "simulation_test",
    ),
    Mutant(
        "dropped when it crashed",
        "src/tracker.cpp",
        "p.plan = plan_move(d, base + kSuspectsSuffix, false, loop_.wall(), random_, returner_);",
        "p.plan.what.token = d.token;",
        "simulation_test",
    ),
    Mutant(
        "duplicates told by ids merely seen",
        "src/tracker.cpp",
        "  if (d.returns > 0 || (d.returns < 0 && d.redelivered)) unclean(queue);\n",
        "  remember(d.msg.id);\n  if (d.returns > 0 || (d.returns < 0 && d.redelivered)) unclean(queue);\n",
        "simulation_test",
    ),
    Mutant(
        "retries forgotten",
        "src/settling.cpp",
        "        by_count[line.next_retry_count].add(line.text);\n",
        "",
        "simulation_test",
    ),
    Mutant(
        "dead job not stored",
        "src/settling.cpp",
        "        plan.what.dead.push_back({base_queue(m.queue), line.id, std::move(line.text)});\n",
        "",
        "worker_test",
        "*retries*",
    ),
    Mutant(
        "results dropped at settling",
        "src/settling.cpp",
        "  if (w.wants_results()) plan.what.results = w.take_results();\n",
        "  (void)w.take_results();\n",
        "worker_test",
        "*every_job*",
    ),
    Mutant(
        "unstarted lines forgotten",
        "src/settling.cpp",
        "  if (!w.unstarted().empty()) {\n    packer rest",
        "  if (false) {\n    packer rest",
        "simulation_test",
    ),
    Mutant(
        "retry counter not raised",
        "src/attempt.cpp",
        "    retry.next_retry_count = retry_count + 1;\n",
        "    retry.next_retry_count = retry_count;\n",
        "worker_test",
        "*retries*",
    ),
    Mutant(
        "last line of a batch not run",
        "src/pools/thread_work.cpp",
        "    if (line < lines()) {\n",
        "    if (line + 1 == lines() && line > 0) s.ended++;\n    if (line + (line > 0 ? 1 : 0) < lines()) {\n",
        "worker_test",
        "*every_job*",
    ),
    Mutant(
        "the rest of a run waits behind a slow line",
        "src/pools/thread_work.cpp",
        "  return take_over(s, line);\n",
        "  return false;\n",
        "thread_work_test",
    ),
    Mutant(
        "the rest of a run is taken over while its thread records a result",
        "src/pools/thread_work.cpp",
        "      const std::lock_guard<short_lock> lock(slots_[t].lock);\n      std::uint64_t theirs",
        "      std::uint64_t theirs",
        "thread_work_test",
    ),
    Mutant(
        "the rest of a run is forgotten when starting stops",
        "src/pools/thread_work.cpp",
        "      for (std::uint32_t i = next; i < end_of(held); ++i) unstarted_.push_back(i);\n",
        "",
        "thread_work_test",
    ),
    Mutant(
        "slow threads leave the rest of a run for later",
        "src/pools/thread_work.cpp",
        "  if (s.pace.slow() && take_over(s, line)) return true;\n",
        "",
        "thread_work_test",
    ),
    Mutant(
        "who is woken wakes nobody else",
        "src/pools/child.cpp",
        "  woken = false;\n  futex_wake(state_.header().lanes[lane_].bell, 1);\n}",
        "  woken = false;\n}",
        "processes_test",
        also=("pool_child",),
    ),
    Mutant(
        "a child's rest waits behind a slow line",
        "src/pools/processes.cpp",
        "  pass_on_rests();\n",
        "",
        "processes_test",
        "*slow_job_among_quick*",
    ),
    Mutant(
        "a child's rest is started after a stop",
        "src/pools/process_work.cpp",
        "      if (const packed_rest rest = pool_.take_rest(w, key)) give_back(next_of(rest), end_of(rest));\n",
        "",
        "processes_test",
        "*took_and_did_not_start*",
    ),
    Mutant(
        "the rests of living children run again at the death of another",
        "src/pools/process_ends.cpp",
        "    for (const std::vector<packed_line>& theirs : {rests_of(other), running_of(other)}) {\n",
        "    for (const std::vector<packed_line>& theirs : {running_of(other)}) {\n",
        "processes_test",
        "*killed_at_random*",
    ),
    Mutant(
        "last message of a send_many not sent",
        "src/window_publisher.cpp",
        "    if (jobs_ > 0) send();\n    std::unique_lock",
        "    if (jobs_ > 1000000) send();\n    std::unique_lock",
        "producer_test",
        "*many_jobs*",
    ),
    Mutant(
        "ids of shared messages off by one",
        "src/coalescer.cpp",
        "then(message, ++line, outcome);",
        "then(message, line++, outcome);",
        "producer_test",
        "*threads_send*",
    ),
    Mutant(
        "a thread that was woken for its answer does not wake the next",
        "src/relay.cpp",
        "    if (!next_.empty()) behind = take_next();\n",
        "",
        "relay_test",
    ),
    Mutant(
        "a thread that is woken and does not run holds up all behind it",
        "src/relay.cpp",
        "      while (!next_.empty()) late.push_back(take_next());\n",
        "",
        "relay_test",
    ),
    Mutant(
        "a shared message leaves although its senders still come",
        "src/coalescer.cpp",
        "  if (l.holding) l.came = loop_.now();\n",
        "",
        "coalescer_test",
    ),
    Mutant(
        "a hold that waits for a later timer of an earlier one",
        "src/coalescer.cpp",
        "l.looks_at > end) look",
        "l.looks_at == loop::clock::time_point::max()) look",
        "coalescer_test",
    ),
    Mutant(
        "a full message of an ordered queue held for senders",
        "src/coalescer.cpp",
        " && !has_full(l)) {",
        ") {",
        "coalescer_test",
    ),
    Mutant(
        "strangers that come make a hold longer",
        "src/coalescer.cpp",
        "      here.same_again = false;\n",
        "      here.same_again = true;\n",
        "coalescer_test",
    ),
    Mutant(
        "moderation although the broker waits for acknowledgements",
        "src/transports/rabbitmq/moderation.hpp",
        "unsettled <= prefetch / 2;",
        "unsettled <= prefetch;",
        "rabbitmq_parts_test",
    ),
    Mutant(
        "a timer made on a lent loop noticed when the loop wakes by itself",
        "src/thread_loop.cpp",
        " || next_timer() < sleeps_until_",
        "",
        "loop_test",
    ),
    Mutant(
        "a moderated reactor looks at its sockets",
        "src/net/reactor.cpp",
        "    if (moderated_.count() > 0) {",
        "    if (moderated_.count() > 1'000'000'000'000) {",
        "reactor_test",
    ),
    Mutant(
        "lines of a dead child forgotten",
        "src/pools/process_ends.cpp",
        "          again.which.push_back(block.view.index(line));\n",
        "",
        "failpoints_test",
        "*in_claim*sqlite*",
        ("failpoint_worker",),
    ),
    Mutant(
        "SQLite: fencing ignored",
        "src/transports/sqlite/store.cpp",
        "  if (drop_lease_.run(owner, l.msg, l.number) == 0) return false;\n  drop_body_",
        "  drop_lease_.run(owner, l.msg, l.number);\n  drop_body_",
        "sqlite_test",
        "*fenced*",
    ),
    Mutant(
        "SQLite: a lease never expires",
        "src/transports/sqlite/observer.cpp",
        "    if (s.unchanged >= row.lease) gone.push_back(row.owner);\n",
        "",
        "sqlite_processes_test",
    ),
    Mutant(
        "SQLite: queue order swapped",
        "src/transports/sqlite/schema.hpp",
        "FROM ready WHERE queue = ?1 ORDER BY seq LIMIT ?2",
        "FROM ready WHERE queue = ?1 ORDER BY seq DESC LIMIT ?2",
        "conformance_test",
        "*/sqlite",
    ),
    Mutant(
        "SQLite: a release is charged",
        "src/transports/sqlite/transaction.cpp",
        "store_.give_back(owner_, found->second.l, false);",
        "store_.give_back(owner_, found->second.l, true);",
        "conformance_test",
        "*/sqlite",
    ),
    Mutant(
        "SQLite: results in no transaction",
        "src/transports/sqlite/transaction.cpp",
        "  for (const result_chunk& r : s.results) store_.add_result(r, now);\n",
        "",
        "conformance_test",
        "*/sqlite",
    ),
    Mutant(
        "RabbitMQ: published without mandatory",
        "src/transports/rabbitmq/wire.cpp",
        "  *at++ = 1;\n  *at++ = kFrameEnd;\n  frame_head(at, AMQP_FRAME_HEADER",
        "  *at++ = 0;\n  *at++ = kFrameEnd;\n  frame_head(at, AMQP_FRAME_HEADER",
        "conformance_test",
        "*unknown_queue*/rabbitmq:*no_such*/rabbitmq:*publish*/rabbitmq",
    ),
    Mutant(
        "RabbitMQ: confirm taken for granted",
        "src/transports/rabbitmq/publisher.cpp",
        "    next.sent = true;\n",
        "    next.sent = true;\n"
        "    publish_end granted;\n"
        "    granted.outcome.status = publish_status::accepted;\n"
        "    next.group->end(next.index, std::move(granted));\n",
        "rabbitmq_test",
    ),
    Mutant(
        "RabbitMQ: a nack taken for a confirm",
        "src/transports/rabbitmq/publisher.cpp",
        "  if (!acked) {\n",
        "  if (!acked && message.index > 1'000'000) {\n",
        "rabbitmq_test",
    ),
    Mutant(
        "RabbitMQ: acknowledged before what takes its place is confirmed",
        "src/transports/rabbitmq/sender.cpp",
        "  send(s.publish, group, 0, true);\n  std::vector<outgoing> now = one->others;",
        "  if (one->final) consumers_.finish(one->token, [](bool) {});\n"
        "  send(s.publish, group, 0, true);\n  std::vector<outgoing> now = one->others;",
        "rabbitmq_test",
    ),
    Mutant(
        "RabbitMQ: what was not confirmed is not sent again",
        "src/transports/rabbitmq/publisher.cpp",
        "    if (s->open && !s->message.group->ended(s->message.index)) ready_.push_front(std::move(s->message));\n",
        "",
        "rabbitmq_test",
    ),
    Mutant(
        "signatures: a message moved to another queue taken for good",
        "src/signing.cpp",
        "  append_field(head, base_queue(m.queue));\n",
        "",
        "signing_test",
    ),
    Mutant(
        "two messages of an ordered queue out at once",
        "src/transports/memory/broker.cpp",
        "(!ordered || q.running == 0)",
        "(!ordered || q.running < 2)",
        "simulation_test",
    ),
    Mutant(
        "the rest of an ordered message put behind others",
        "src/tracker.cpp",
        " || (a.queue->ordered && !w->unstarted().empty())",
        "",
        "simulation_test",
    ),
    Mutant(
        "two messages of an ordered queue unanswered at once",
        "src/coalescer.cpp",
        "if (l.ordered && l.on_their_way > 0) return;",
        "if (l.ordered && l.on_their_way > 1) return;",
        "coalescer_test",
    ),
    Mutant(
        "SQLite: an ordered queue claimed while a message of it is out",
        "src/transports/sqlite/store.cpp",
        "  if (ordered_.count(queue) == 0) return false;\n",
        "  if (ordered_.count(queue) < 2) return false;\n",
        "conformance_test",
        "*ordered*/sqlite",
    ),
    Mutant(
        "RabbitMQ: who leaves an ordered queue acknowledges before the cancel",
        "src/transports/rabbitmq/consumer.cpp",
        "  remove(found);\n  if (st->leaving) {\n",
        "  remove(found);\n  if (st->leaving) flush(st);\n  if (st->leaving) {\n",
        "conformance_test",
        "*ordered*/rabbitmq",
    ),
    Mutant(
        "a key that a job holds given to another",
        "src/transports/sqlite/store_claims.cpp",
        "      if (job == c->job) return std::nullopt;\n      return job;\n",
        "      return std::nullopt;\n",
        "conformance_test",
        "*claims*/sqlite:*claim*/sqlite:*key*/sqlite",
    ),
    Mutant(
        "a job that is unique until its start keeps its key",
        "src/claimed_work.cpp",
        "  let_go_([at = weak_from_this()](bool ours) {\n"
        "    if (const auto self = at.lock()) self->run_job(ours);\n"
        "  });",
        "  run_job(true);",
        "producer_keys_test",
    ),
    Mutant(
        "a key taken over from a sender that lives",
        "src/store_claims.cpp",
        "  if (now - a->since >= lease_) {\n    take_over",
        "  if (now >= a->since) {\n    take_over",
        "conformance_test",
        "*store_claims*",
    ),
    Mutant(
        "a plain line's task taken from the line before",
        "src/codec/plain.cpp",
        "  return differences == 0;\n",
        "  return true;\n",
        "codec_test",
    ),
    Mutant(
        "SQLite: what a sender's thread was lent for is left undone",
        "src/transports/sqlite/writer.cpp",
        "    if (inbox_.empty()) return;\n  }\n  const signals_blocked",
        "    return;\n  }\n  const signals_blocked",
        "sqlite_lending_test",
    ),
    Mutant(
        "shards that were there before a worker are not looked for",
        "src/tracker_queues.cpp",
        "may_have_shards(queue) ? find_shards(queue, 1, go_on) : std::function<void()>(go_on)();",
        "const std::function<void()> at_once = go_on;\n    at_once();",
        "shards_test",
    ),
    Mutant(
        "shards that messages speak of are not heard of",
        "src/tracker.cpp",
        "  if (!d.msg.headers.empty()) hear_of_shards(queue, d.msg);\n",
        "",
        "shards_test",
    ),
    Mutant(
        "a sender's first message goes where no worker may look",
        "src/shards.cpp",
        "std::uint32_t chosen = q.next % shards;",
        "std::uint32_t chosen = (q.next + 1) % shards;",
        "shards_test",
    ),
    Mutant(
        "a shard without a leader takes all that a sender may have unanswered",
        "src/shards.cpp",
        "    if (q.unanswered[other] < q.unanswered[chosen]) chosen = other;\n",
        "    if (q.unanswered[other] > 99) chosen = other;\n",
        "shards_test",
    ),
)
