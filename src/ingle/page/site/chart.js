// The chart of held-out loss: the gate's measurement of every candidate.

import { html } from "./parts.js";

const STATES = { accepted: "accepted", refused: "refused", undone: "undone since" };
const [WIDE, HIGH, LEFT, TOP, BOTTOM] = [352, 176, 44, 22, 34]; // in pixels

export const day = (at) => new Date(at).toLocaleDateString(undefined, { day: "numeric", month: "short" });
export const when = (at) => new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
const signed = (number) => (number == null ? "?" : (number >= 0 ? "+" : "−") + Math.abs(number).toFixed(2));

export function Chart({ model, points }) {
  const begin = points[0].before ?? points[0].bits;
  const alone = points.map((point) => point.before ?? begin); // the model itself, without what was measured
  const every = [...alone, ...points.map((point) => point.bits)];
  const least = begin * 0.01; // else the last digit would look like a disaster
  let [low, high] = [Math.min(...every), Math.max(...every)];
  const room = Math.max(least, (high - low) * 0.12);
  [low, high] = [low - room, high + room];
  const right = WIDE - 8;
  const x = (i) => LEFT + 10 + (i * (right - LEFT - 20)) / points.length;
  const y = (bits) => TOP + ((high - bits) * (HIGH - TOP - BOTTOM)) / (high - low);
  const dots = points.map((point, i) => ({
    key: point.at, state: point.state, x: x(i + 1), y: y(point.bits), from: y(alone[i]),
    said: `${point.what}, ${STATES[point.state]}: ${point.bits.toFixed(4)} bits per byte (${signed(point.rise)} %), ${when(point.at)}`,
  }));
  const stands = dots.filter((dot) => dot.state === "accepted");
  const digits = high - low < 0.08 ? 3 : 2;
  const ticks = [0, 1, 2, 3].map((i) => low + ((i + 0.5) * (high - low)) / 4).map((bits) => ({ y: y(bits), text: bits.toFixed(digits) }));
  const newest = stands.length ? `, the newest with ${points[dots.indexOf(stands.at(-1))].bits.toFixed(3)} bits per byte` : "";
  const line = [`${x(0)},${y(begin)}`, ...dots.map((dot) => `${dot.x},${dot.from}`)].join(" ");
  const said = `Held-out loss of ${model}: ${alone.at(-1).toFixed(3)} bits per byte; ${points.length} measured beside it, ${stands.length} of them at work${newest}.`;
  return html`
    <figure class="loss">
      <svg viewBox=${`0 0 ${WIDE} ${HIGH}`} role="img" aria-label=${said}>
        <text class="axis" x=${LEFT} y="11">bits per byte of text that nobody taught; lower is better</text>
        ${ticks.map((tick) => html`<g key=${tick.y}>
          <line class="grid" x1=${LEFT} x2=${right} y1=${tick.y} y2=${tick.y}></line><text class="axis end" x=${LEFT - 6} y=${tick.y + 4}>${tick.text}</text></g>`)}
        <polyline class="life" points=${line}></polyline>
        ${dots.map((dot) => html`<g key=${dot.key}>
          <line class="stem" x1=${dot.x} x2=${dot.x} y1=${dot.from} y2=${dot.y}></line>
          <circle class=${dot.state} cx=${dot.x} cy=${dot.y} r="4"><title>${dot.said}</title></circle></g>`)}
        <text class="axis" x=${LEFT} y=${HIGH - 6}>${day(points[0].at)}</text>
        <text class="axis end" x=${right} y=${HIGH - 6}>${points.length > 1 ? `${points.length} candidates, ${day(points.at(-1).at)}` : "1 candidate"}</text>
      </svg>
      <figcaption><span class="key begin">the model</span><span class="key accepted">accepted</span><span class="key refused">refused</span><span class="key undone">undone</span>
        <small>Each is measured on every text. A lesson acts only on questions near it.</small></figcaption>
    </figure>`;
}
