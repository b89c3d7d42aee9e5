"use strict";

/** What layers lose, where their levels end, and how their inputs are distributed. */
function startLayers() {
  const models = dataOf("layers-data");
  if (!models) return;
  const part = (name) => document.getElementById(`layers-${name}`);
  const model = part("model");
  const layer = part("layer");
  const rows = () => models[Number(model.value)].rows;
  const chosen = () => rows().find((row) => row.name === layer.value);
  const names = () => rows().map((row) => row.name);
  const bars = { grid: { display: false }, ticks: { autoSkip: true, maxRotation: 90, font: { size: 11 } } };

  const losses = () => new LivingChart(part("losses").querySelector("canvas"), () => ({
    type: "bar",
    data: { labels: names(), datasets: [{ data: rows().map((row) => row.loss), backgroundColor: seriesColour(1), maxBarThickness: 26 }] },
    options: {
      scales: { x: bars, y: axis("loss (dB)") },
      plugins: { legend: { display: false }, tooltip: { callbacks: { label: (item) => `${shown(item.raw, 3)} dB` } } },
    },
  }));

  const ranges = () => new LivingChart(part("ranges").querySelector("canvas"), () => ({
    type: "bar",
    data: {
      labels: names(),
      datasets: [
        { label: "levels", data: rows().map((row) => (row.lower === null ? null : [row.lower, row.upper])), backgroundColor: seriesColour(0), grouped: false, order: 0, maxBarThickness: 12, barPercentage: 0.45 },
        { label: "values of the float network", data: rows().map((row) => row.seen), backgroundColor: faded(seriesColour(7), 0.45), grouped: false, order: 1, maxBarThickness: 26 },
      ].filter((each) => each.data.some((value) => value !== null)),
    },
    options: {
      scales: { x: bars, y: axis("value") },
      onClick: (_, items) => {
        const row = items.length ? rows()[items[0].index] : null;
        if (row?.counts.length) { layer.value = row.name; distribution?.draw(); }
      },
      plugins: {
        legend: { position: "bottom" },
        tooltip: { callbacks: { label: (item) => `${item.dataset.label}: ${item.raw.map(brief).join(" … ")}` } },
      },
    },
  }));

  const histogram = () => new LivingChart(part("distribution").querySelector("canvas"), ({ ink }) => {
    const row = chosen();
    if (!row) return { type: "bar", data: { labels: [], datasets: [] } };
    const [lowest, highest] = row.seen;
    const width = (highest - lowest) / row.counts.length;
    const most = Math.max(...row.counts);
    const edge = (value, label) => ({
      label, type: "line", data: [{ x: value, y: 0.5 }, { x: value, y: most }], borderColor: ink, borderDash: [6, 4], borderWidth: 2, pointRadius: 0,
    });
    return {
      type: "bar",
      data: {
        datasets: [
          { label: "values", data: row.counts.map((count, bin) => ({ x: lowest + (bin + 0.5) * width, y: count || null })), backgroundColor: seriesColour(0), barPercentage: 1, categoryPercentage: 1 },
          edge(row.lower, "lowest level"),
          edge(row.upper, "highest level"),
        ],
      },
      options: {
        scales: { x: axis("value", { type: "linear", grid: { display: false } }), y: axis("how often", { type: "logarithmic", min: 0.5, ticks: { callback: (value) => brief(value), maxTicksLimit: 6 } }) },
        plugins: {
          legend: { position: "bottom" },
          tooltip: { callbacks: { title: () => "", label: (item) => `${item.dataset.label} ${brief(item.raw.x)}${item.dataset.type ? "" : `: ${shown(item.raw.y, 0)} times`}` } },
        },
      },
    };
  });

  const numbers = () => {
    part("numbers").querySelector("tbody").replaceChildren(...rows().map((row) => {
      const line = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = row.name;
      const [smallest, largest] = row.seen ?? [null, null];
      const texts = [row.bits, ...[row.lower, row.upper, smallest, largest].map(brief), row.loss === null ? "–" : shown(row.loss, 3)];
      line.append(head, ...texts.map((text) => {
        const cell = document.createElement("td");
        cell.textContent = text;
        return cell;
      }));
      return line;
    }));
  };

  let [sensitivity, range, distribution] = [null, null, null];
  const show = () => {
    const found = rows();
    part("note").textContent = models[Number(model.value)].note;
    part("losses").hidden = !found.some((row) => row.loss !== null);
    part("ranges").hidden = !found.some((row) => row.lower !== null);
    part("numbers").hidden = !found.length;
    part("distribution").hidden = !found.some((row) => row.counts.length);
    const before = layer.value;
    layer.replaceChildren(...found.filter((row) => row.counts.length).map((row) => new Option(row.name, row.name, false, row.name === before)));
    if (!part("losses").hidden) sensitivity ? sensitivity.draw() : (sensitivity = losses());
    if (!part("ranges").hidden) range ? range.draw() : (range = ranges());
    if (!part("distribution").hidden) distribution ? distribution.draw() : (distribution = histogram());
    numbers();
  };
  model.addEventListener("change", show);
  layer.addEventListener("change", () => distribution.draw());
  show();
}
