"""Binds a model, its guards and the judges that come with Ingle into a target."""

from ingle.core.digest import digest_json
from ingle.core.message import Sampling
from ingle.engine.language_model import LanguageModel
from ingle.measure.subjects import Subject
from ingle.robustness.target import Opinion, Target
from ingle.safety import answers
from ingle.safety.guard_files import guard_files, make_guards
from ingle.safety.judge import load_judge
from ingle.safety.limits import RequestLimits
from ingle.safety.opinion import AskGuard, nobody
from ingle.safety.policy import GuardPolicy, rule_of
from ingle.safety.reading import REQUESTS


def target_of(
    model: LanguageModel, subject: Subject, limits: RequestLimits, policy: GuardPolicy, sampling: Sampling | None = None,
    ask: AskGuard = nobody,
) -> Target:  # fmt: skip
    """Return a model as it is attacked: behind its guards under this policy, judged by Ingle's judge of answers.

    The attacker has a copy of the policy's judge of requests, and knows its thresholds. `sampling`: how answers are drawn; None = greedily.
    `ask`: asks guard models.
    """
    judge, rules = load_judge(policy.judge), policy.rules(model.name)
    guards = make_guards(limits, policy, model.name, ask=ask)
    rates = {file.name: rule_of(rules, file.name, file.modes).alarms for file in guard_files() if file.name in REQUESTS}

    def alarm(text: str) -> float:
        scores = judge.scores(text)
        return max(scores.margin(judge, name, rate)[0] for name, rate in rates.items())

    digest = digest_json([policy.digest, [[layer.name, layer.mode] for layer in guards], judge.digest])
    return Target(subject, model.encode, guards, judged, alarm, digest, sampling or Sampling())


def judged(question: str, answer: str) -> Opinion:
    """Return the opinion of Ingle's judge of answers."""
    return Opinion(answers.refuses(question, answer), answers.harm(question, answer), answers.reached(question, answer))
