// The page's drawings: the histogram of scores, spectrograms, and attention weights.

// Colours of a spectrogram from quiet to loud, and of a head's weights from 0 up: red, green, blue.
const LOUDNESS = [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];
const WEIGHTS = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];

const at = (scale, value) => {
  const place = Math.min(Math.max(value, 0), 1) * (scale.length - 1), below = Math.min(Math.floor(place), scale.length - 2);
  return scale[below].map((one, channel) => one + (place - below) * (scale[below + 1][channel] - one));
};

// Paint a picture; value(column, row) is from 0 to 1, row 0 the lowest.
function paint(canvas, columns, rows, scale, value) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
  for (let column = 0; column < columns; column++) {
    for (let row = 0; row < rows; row++) {
      const place = 4 * ((rows - 1 - row) * columns + column);
      image.data.set(at(scale, value(column, row)), place);
      image.data[place + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

export function spectrogram(canvas, {bands, columns, values}) {
  const bytes = Uint8Array.from(atob(values), (one) => one.charCodeAt(0));
  paint(canvas, columns, bands, LOUDNESS, (column, row) => bytes[column * bands + row] / 255);
}

export function heads(canvas, each) {
  const sorted = each.flat().sort((a, b) => a - b), top = Math.max(sorted[Math.floor(0.995 * (sorted.length - 1))], 1e-3);
  canvas.style.height = `${Math.min(8, Math.max(2, 0.4 * each.length))}rem`;
  paint(canvas, each[0].length, each.length, WEIGHTS, (column, row) => each[each.length - 1 - row][column] / top);
}

function node(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function board(place, height, label) {
  const width = Math.max(place.clientWidth, 200);
  const svg = node("svg", {width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label});
  place.replaceChildren(svg);
  return {svg, width};
}

// Round numbers, about `count` of them, from low to high.
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let place = Math.ceil(low / step); place * step <= high + 1e-9; place++) found.push(Number((place * step).toPrecision(6)));
  return found;
}

// Weights times the number of frames over a recording: 1 is uniform.
export function weights(place, mean, what) {
  const height = 64, top = 1.05 * Math.max(...mean, 1.5);
  const {svg, width} = board(place, height, what);
  const y = (value) => height - 2 - (height - 4) * value / top;
  const points = mean.flatMap((value, column) => [`${width * column / mean.length},${y(value)}`,
    `${width * (column + 1) / mean.length},${y(value)}`]);
  svg.append(node("line", {class: "rule", x1: 0, x2: width, y1: y(1), y2: y(1)}),
    node("polyline", {class: "curve", points: points.join(" ")}),
    node("text", {x: width - 4, y: y(1) - 3, "text-anchor": "end"}, "1 / T"));
}

export function seconds(place, length) {
  const {svg, width} = board(place, 20, `${length} seconds`);
  for (const one of ticks(0, length, width / 90)) {
    const x = width * one / length;
    svg.append(node("line", {class: "rule", x1: x, x2: x, y1: 0, y2: 5}),
      node("text", {x, y: 17, "text-anchor": x < 8 ? "start" : x > width - 14 ? "end" : "middle"},
        one === 0 ? "0 s" : String(one)));
  }
}

// The scores of held-out speakers; score and threshold (either may be null) are lines on it.
export function histogram(place, {low, high, targets, nontargets}, score, threshold) {
  const height = 250, head = 44, foot = 24, marks = [score, threshold].filter((one) => one !== null);
  const {svg, width} = board(place, height, "Histogram of the scores of held-out speakers");
  let from = Math.min(low, ...marks), to = Math.max(high, ...marks);
  [from, to] = [from - 0.02 * (to - from), to + 0.02 * (to - from)];
  const x = (value) => width * (value - from) / (to - from);
  const share = (counts) => counts.map((one) => one / Math.max(counts.reduce((a, b) => a + b, 0), 1));
  const sides = [["nontargets", "two speakers", share(nontargets)], ["targets", "one speaker", share(targets)]];
  const top = Math.max(...sides.flatMap(([, , values]) => values), 1e-9);
  const y = (value) => height - foot - (height - foot - head) * value / top;
  for (const [name, , values] of sides) {
    const edge = (bin) => x(low + (high - low) * bin / values.length);
    const points = values.flatMap((value, bin) => [`${edge(bin)},${y(value)}`, `${edge(bin + 1)},${y(value)}`]);
    svg.append(node("polygon", {class: name, points: `${edge(0)},${y(0)} ${points.join(" ")} ${edge(values.length)},${y(0)}`}));
  }
  svg.append(node("line", {class: "rule", x1: 0, x2: width, y1: y(0), y2: y(0)}));
  for (const one of ticks(from, to, width / 90)) {
    if (x(one) > 12 && x(one) < width - 12) svg.append(node("text", {x: x(one), y: height - 6, "text-anchor": "middle"}, one));
  }
  let left = 0;
  for (const [name, label] of sides.reverse()) {
    svg.append(node("rect", {class: name, x: left + 1, y: 1, width: 12, height: 12}), node("text", {x: left + 19, y: 12}, label));
    left += 30 + 7 * label.length;
  }
  const line = (value, name, label, height) => {
    const end = x(value) > width / 2;
    svg.append(node("line", {class: name, x1: x(value), x2: x(value), y1: height + 4, y2: y(0)}),
      node("text", {class: name === "here" ? "strong" : "", x: x(value), y: height, "text-anchor": end ? "end" : "start"}, label));
  };
  if (threshold !== null) line(threshold, "threshold", "threshold", height - foot - 0.62 * (height - foot - head));
  if (score !== null) line(score, "here", "these recordings", 36);
}
