"use strict";

/** A chart for each part of the losses, with a line for each model. */
function startCurves() {
  const curves = dataOf("curves-data");
  if (!curves) return;
  const place = document.getElementById("curves");
  // Curves of one colour are told apart by their dashes.
  const dashes = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
  const dash = (curve) => dashes[curves.filter((other) => other.number === curve.number).indexOf(curve) % dashes.length];
  const parts = [...new Set(curves.flatMap((curve) => Object.keys(curve.parts)))];
  for (const part of parts) {
    const own = curves.filter((curve) => curve.parts[part]);
    const box = document.createElement("div");
    const title = document.createElement("h3");
    title.textContent = part;
    const frame = document.createElement("div");
    frame.className = "chart";
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    const known = (curve) => curve.parts[part].filter((value) => value !== null);
    const ends = own.map((curve) => `${curve.title} from ${brief(known(curve)[0])} to ${brief(known(curve).at(-1))}`);
    canvas.setAttribute("aria-label", `${part} over the epochs: ${ends.join("; ")}`);
    frame.append(canvas);
    box.append(title, frame);
    place.append(box);
    const positive = own.every((curve) => known(curve).every((value) => value > 0));
    new LivingChart(canvas, () => ({
      type: "line",
      data: {
        datasets: own.map((curve) => ({
          label: curve.title,
          data: curve.parts[part].map((value, epoch) => ({ x: epoch + 1, y: value })),
          borderColor: seriesColour(curve.number), backgroundColor: seriesColour(curve.number),
          borderDash: dash(curve), borderWidth: 2, pointRadius: curve.parts[part].length > 60 ? 0 : 2.5, pointStyle: MARKS[curve.number % 8],
        })),
      },
      options: {
        scales: {
          x: axis("epoch", { type: "linear", ticks: { precision: 0 }, grid: { display: false } }),
          y: axis("", { type: positive ? "logarithmic" : "linear", ticks: { callback: (value) => brief(value), maxTicksLimit: 6 } }),
        },
        interaction: { mode: "nearest", axis: "x", intersect: false },
        plugins: { legend: { position: "bottom", labels: { usePointStyle: true } }, tooltip: { callbacks: { title: (items) => `epoch ${items[0].raw.x}`, label: (item) => `${item.dataset.label}: ${brief(item.raw.y)}` } } },
      },
    }));
  }
}
