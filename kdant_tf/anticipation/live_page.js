"use strict";

const SPAN_S = 60, LEAST_SPAN_S = 10, ROWS = 20;
// The pictures that came: one is kept each so many seconds, and shown each so many as have room.
const THUMB_EVERY_S = 0.5, THUMB_STEPS_S = [0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16], THUMB_HEIGHT = 96;
// A source that stands still lets the clock run on for so long, and a screen reader hears at most so often.
const COAST_S = 1, SPOKEN_EVERY_MS = 4000, STEADY_MS = 1000;
const WORDS = {
  loading: "the model is being loaded", waiting: "about to begin", playing: "live", ended: "at its end",
  closed: "kdant has ended", lost: "no connection, trying again", paused: "the page is paused",
};
const find = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

let state = null, socket = null, paused = false, lost = true, waitMs = 250;
let came = { timeS: null, atMs: 0 }, drawnFor = "";
let thumbs = [], era = 0, rows = [], spoken = { name: "", atMs: -Infinity, since: 0, candidate: "" };

function nowS() {
  if (came.timeS === null) return null;
  return came.timeS + Math.min(COAST_S, state.status === "playing" ? (performance.now() - came.atMs) / 1000 : 0);
}

const seconds = (value, digits = 1) => `${value.toFixed(digits)} s`;
const percent = (value) => `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`;
const milliseconds = (value) => (value < 1 ? `${Math.round(1000 * value)} ms` : seconds(value));

function connect() {
  socket = new WebSocket(new URL("live", location.href.replace(/^http/, "ws")));
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { lost = false; waitMs = 250; };
  socket.onmessage = async (event) => {
    const own = socket;
    try {
      await (typeof event.data === "string" ? takeState(JSON.parse(event.data)) : takePicture(event.data));
    } finally {
      if (own.readyState === WebSocket.OPEN) own.send("shown");
    }
  };
  socket.onclose = () => {
    lost = true;
    showStatus();
    setTimeout(connect, waitMs);
    waitMs = Math.min(5000, 2 * waitMs);
  };
}

function takeState(given) {
  const anew = state === null || given.source !== state.source || (given.answer === null && state.answer);
  state = given;
  if (anew) { thumbs = []; rows = []; came.timeS = null; find("rows").replaceChildren(); takeStrip(); }
  if (paused) return;
  if (given.answer) { keepRow(given); speak(given.answer); }
  showState();
}

async function takePicture(data) {
  const timeS = new DataView(data).getFloat64(0);
  const picture = await createImageBitmap(new Blob([data.slice(8)], { type: "image/jpeg" }));
  if (!paused) {
    came = { timeS, atMs: performance.now() };
    const canvas = find("picture");
    if (canvas.width !== picture.width || canvas.height !== picture.height) {
      [canvas.width, canvas.height] = [picture.width, picture.height];
    }
    canvas.getContext("2d").drawImage(picture, 0, 0);
    keepThumb(timeS, picture);
  }
  picture.close();
}

function keepThumb(timeS, picture) {
  const last = thumbs.at(-1);
  if (last && Math.floor(timeS / THUMB_EVERY_S) === Math.floor(last.timeS / THUMB_EVERY_S)) return;
  thumbs.push({ timeS, small: shrink(picture) });
  while (thumbs[0].timeS < timeS - SPAN_S - THUMB_STEPS_S.at(-1)) thumbs.shift();
}

function shrink(picture) {
  const small = document.createElement("canvas");
  small.height = THUMB_HEIGHT;
  small.width = Math.max(1, Math.round(THUMB_HEIGHT * picture.width / picture.height));
  small.getContext("2d").drawImage(picture, 0, 0, small.width, small.height);
  return small;
}

async function takeStrip() {
  // What other browsers have seen before this one came.
  const own = ++era, found = [];
  try {
    const answer = await fetch(new URL("strip", location.href)), data = await answer.arrayBuffer();
    for (let at = 0; answer.ok && at < data.byteLength;) {
      const head = new DataView(data, at), end = at + 12 + head.getUint32(8);
      const picture = await createImageBitmap(new Blob([data.slice(at + 12, end)], { type: "image/jpeg" }));
      found.push({ timeS: head.getFloat64(0), small: shrink(picture) });
      picture.close();
      at = end;
    }
  } catch {
    return;  // Gone, or at its end: the time line goes on without them.
  }
  if (own !== era) return;
  const first = thumbs.length ? thumbs[0].timeS : Infinity;
  thumbs = [...found.filter(({ timeS }) => timeS < first), ...thumbs];
}

function showStatus() {
  const status = paused ? "paused" : lost ? (state && state.status === "closed" ? "closed" : "lost") : state ? state.status : "lost";
  if (find("status").dataset.status !== status) {
    find("status").dataset.status = status;
    find("status").textContent = WORDS[status];
  }
  find("again").hidden = status !== "ended" || !state.again;
}

function setText(id, text) {
  if (find(id).textContent !== text) find(id).textContent = text;
}

function showState() {
  showStatus();
  setText("source", state.source || "kdant");
  setText("note", state.note || "");
  setText("model", state.model ? `Model: ${state.model}` : "");
  if (state.source) document.title = `${state.source} – kdant`;
  showBars(state.answer);
  if (state.latency) showSpeed(state.latency, state.answer);
}

function showBars(answer) {
  const bars = find("bars"), top = answer ? answer.top : [];
  find("hint").hidden = top.length > 0;
  setText("hint", answer ? "Nothing is likely enough." : "No answer yet.");
  while (bars.children.length > top.length) bars.lastChild.remove();
  while (bars.children.length < top.length) {
    const item = document.createElement("li");
    for (const name of ["name", "value", "track"]) {
      item.append(Object.assign(document.createElement(name === "track" ? "div" : "span"), { className: name }));
    }
    item.lastChild.append(Object.assign(document.createElement("div"), { className: "fill" }));
    item.lastChild.setAttribute("aria-hidden", "true");
    bars.append(item);
  }
  top.forEach(([place, name, value], number) => {
    const [nameOf, valueOf, track] = bars.children[number].children;
    nameOf.textContent = name;
    valueOf.textContent = percent(value);
    track.firstChild.style.width = `${100 * value}%`;
    track.firstChild.style.background = colorOf(place)[0];
  });
  showOthers(answer && answer.others ? answer.others : []);
}

function showOthers(others) {
  // What the other heads of a model say: a verb and a noun, or what comes sooner.
  find("others").hidden = !others.length;
  find("others").replaceChildren(...others.map(([head, name, value]) => {
    const row = document.createElement("div");
    row.append(Object.assign(document.createElement("dt"), { textContent: head }));
    row.append(Object.assign(document.createElement("dd"), { textContent: name === null ? "–" : `${name} ${percent(value)}` }));
    return row;
  }));
}

const colorOf = (place) => state.palette[place % state.palette.length];

function showSpeed(latency, answer) {
  const gains = latency.anticipation_s > 0;
  setText("takes", milliseconds(latency.p50_s));
  const share = latency.share === null ? "" : `, ${percent(latency.share)} of the time it gains`;
  setText("takes-note", `median${share}; the last one ${milliseconds(answer.latency_s)}`);
  setText("ahead", gains ? seconds(latency.anticipation_s, 2) : "none");
  setText("ahead-note", gains ? "from the last frame seen to the action" : "the model names what it sees");
  const clips = latency.answers + latency.dropped;
  setText("dropped", String(latency.dropped));
  setText("dropped-note", `of ${clips}, to keep up`);
  setText("late", gains ? String(latency.late) : "–");
  setText("late-note", gains ? `of ${latency.answers} answers, after the action was due` : "nothing is foretold");
}

function keepRow({ answer }) {
  if (rows.length && rows[0].time_s === answer.time_s) return;
  rows.unshift(answer);
  rows.length = Math.min(rows.length, ROWS);
  if (find("answers").open) showRows();
}

function showRows() {
  find("rows").replaceChildren(...rows.map(({ time_s, expected_s, top, latency_s }) => {
    const row = document.createElement("tr");
    const texts = [seconds(time_s, 2), seconds(expected_s, 2), top.length ? top[0][1] : "–", top.length ? percent(top[0][2]) : "", milliseconds(latency_s)];
    texts.forEach((text, column) => {
      row.insertCell().textContent = text;
      if (column > 2) row.lastChild.className = "number";
    });
    return row;
  }));
}

function speak({ top }) {
  // What changes from one clip to the next is not worth a word.
  const name = top.length ? top[0][1] : "", nowMs = performance.now();
  if (name !== spoken.candidate) Object.assign(spoken, { candidate: name, since: nowMs });
  if (!name || name === spoken.name || nowMs - spoken.since < STEADY_MS || nowMs - spoken.atMs < SPOKEN_EVERY_MS) return;
  Object.assign(spoken, { name, atMs: nowMs });
  setText("spoken", `${state.ahead_s > 0 ? "Expected" : "Seen"}: ${name}, ${percent(top[0][2])}`);
}

function spanS() {
  const first = state && state.line.length ? state.line[0][0] : 0;
  return Math.min(SPAN_S, Math.max(LEAST_SPAN_S, (came.timeS ?? 0) - first));
}

function drawLine() {
  const canvas = find("line"), scale = devicePixelRatio, style = getComputedStyle(document.documentElement);
  const width = canvas.clientWidth, height = canvas.clientHeight, time = nowS();
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  if (time === null) return;
  const ink = style.getPropertyValue("--ink"), faint = style.getPropertyValue("--faint");
  const past = spanS(), ahead = Math.max(0.06 * past, state.ahead_s * 1.2);
  const placeOf = (timeS) => width * (timeS - time + past) / (past + ahead);
  const now = placeOf(time), strip = height - 24 - 44;
  pen.fillStyle = style.getPropertyValue("--track");
  pen.fillRect(0, 0, width, 44);
  pen.font = "600 14px system-ui, sans-serif";
  pen.textBaseline = "middle";
  for (const [fromS, toS, place, name] of state.line) {
    const left = Math.max(0, placeOf(fromS)), right = Math.min(width, placeOf(toS));
    if (name === null || right <= left) continue;
    const [color, text] = colorOf(place);
    pen.fillStyle = color;
    pen.fillRect(left, 0, Math.max(1, right - left - 1), 44);
    if (pen.measureText(name).width + 12 <= right - left) {
      pen.fillStyle = text;
      pen.fillText(name, left + 6, 22);
    }
  }
  drawThumbs(pen, strip, width / (past + ahead), placeOf);
  pen.fillStyle = style.getPropertyValue("--raised");
  pen.fillRect(now, 46, width - now, strip + 4);
  drawAxis(pen, { ink, faint, width, height, past, placeOf, now, time });
}

function drawThumbs(pen, high, pixelsPerS, placeOf) {
  if (!thumbs.length) return;
  const wide = high * thumbs.at(-1).small.width / thumbs.at(-1).small.height;
  const step = THUMB_STEPS_S.find((each) => each * pixelsPerS >= 0.9 * wide) || SPAN_S;
  let before = null;
  for (const { timeS, small } of thumbs) {
    const cell = Math.floor(timeS / step);
    if (cell !== before) pen.drawImage(small, placeOf(timeS), 48, wide, high);
    before = cell;
  }
}

function drawAxis(pen, { ink, faint, width, height, past, placeOf, now, time }) {
  const step = past <= 12 ? 2 : past <= 30 ? 5 : 10, y = height - 8;
  pen.font = "13px system-ui, sans-serif";
  pen.fillStyle = faint;
  pen.textAlign = "center";
  for (let back = step; back < past; back += step) {
    const x = placeOf(time - back), text = `-${back} s`, half = pen.measureText(text).width / 2;
    if (x - half >= 0 && x + half < now - 24) pen.fillText(text, x, y);
  }
  pen.fillStyle = ink;
  pen.fillRect(now - 1.5, 0, 3, height - 18);
  pen.fillText("now", Math.min(now, width - 16), y);
  pen.textAlign = "start";
}

function tick() {
  if (!paused && state) {
    const time = nowS(), answer = state.answer;
    setText("clock", time === null ? "" : seconds(time));
    showCountdown(time, answer);
    const mark = still.matches ? `${answer && answer.time_s} ${dark.matches} ${innerWidth}` : `${time} ${dark.matches} ${innerWidth}`;
    if (mark !== drawnFor) { drawnFor = mark; drawLine(); }
  }
  requestAnimationFrame(tick);
}

function showCountdown(time, answer) {
  if (state.ahead_s <= 0) {
    setText("expected-title", "Seen");
    return;
  }
  const left = answer && time !== null ? answer.expected_s - time : null;
  setText("countdown", left === null ? "" : left > 0.05 ? `in ${seconds(left)}` : "now");
  find("fuse").style.width = left === null ? "0" : `${100 * Math.min(1, Math.max(0, left / state.ahead_s))}%`;
}

find("pause").addEventListener("click", () => {
  paused = !paused;
  find("pause").setAttribute("aria-pressed", String(paused));
  if (state && !paused) showState();
  showStatus();
});
find("again").addEventListener("click", () => {
  if (socket.readyState === WebSocket.OPEN) socket.send("again");
  find("pause").focus();
});
find("answers").addEventListener("toggle", showRows);
connect();
requestAnimationFrame(tick);
