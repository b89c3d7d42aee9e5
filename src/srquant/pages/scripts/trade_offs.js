"use strict";

/** Quality against what it costs, both as chosen. */
function startTradeOffs() {
  const networks = dataOf("trade-off-data");
  if (!networks) return;
  const [network, quality, cost] = ["network", "quality", "cost"].map((name) => document.getElementById(`trade-off-${name}`));
  const chosen = () => networks[network ? Number(network.value) : 0];

  const has = (point, one) => Number.isFinite(point.numbers[one.key]);
  const fill = (select, axes, points) => {
    const before = select.value;
    const known = axes.filter((each) => points.some((point) => has(point, each)));
    select.replaceChildren(...known.map((each) => new Option(each.title, each.key, false, each.key === before)));
  };
  const refill = () => {
    const points = chosen().series.flatMap((each) => each.points);
    fill(quality, chosen().qualities, points);
    fill(cost, chosen().costs, points);
  };
  refill();

  const chart = new LivingChart(document.getElementById("trade-off-chart"), ({ soft }) => {
    const { series, qualities, costs, levels } = chosen();
    const x = costs.find((each) => each.key === cost.value) ?? costs[0];
    const y = qualities.find((each) => each.key === quality.value) ?? qualities[0];
    const datasets = series.map((each) => {
      const colour = seriesColour(each.number);
      const points = each.points
        .filter((point) => has(point, x) && has(point, y))
        .map((point) => ({ x: point.numbers[x.key], y: point.numbers[y.key], label: point.label }))
        .sort((one, another) => one.x - another.x);
      return {
        label: each.title, data: points, showLine: points.length > 1, borderColor: colour, backgroundColor: colour,
        pointStyle: MARKS[each.number % 8], pointRadius: 7, pointHoverRadius: 9, borderWidth: 2, tension: 0, clip: 12,
      };
    });
    const level = levels[y.key];
    const all = datasets.flatMap((each) => each.data.map((point) => point.x));
    if (level !== null && level !== undefined && all.length) {
      const spread = x.logarithmic ? [Math.min(...all) * 0.9, Math.max(...all) * 1.1] : [Math.min(...all) - 0.5, Math.max(...all) + 0.5];
      datasets.push({
        label: "float", data: spread.map((value) => ({ x: value, y: level })), showLine: true, pointRadius: 0,
        pointHitRadius: 0, pointStyle: "line", borderColor: soft, backgroundColor: soft, borderDash: [6, 5], borderWidth: 1.5,
      });
    }
    return {
      type: "scatter",
      data: { datasets },
      options: {
        scales: {
          x: axis(x.title, x.logarithmic
            ? { type: "logarithmic", grace: "5%", ticks: { callback: (value) => brief(value), maxTicksLimit: 8, autoSkip: true } }
            : { grace: "8%", ticks: { precision: x.digits } }),
          y: axis(y.title, { grace: "8%", reverse: y.less_is_better }),
        },
        interaction: { mode: "nearest", intersect: true },
        plugins: {
          legend: { position: "bottom", labels: { usePointStyle: true, padding: 16 } },
          tooltip: {
            usePointStyle: true,
            callbacks: {
              title: (items) => items.map((item) => `${item.dataset.label} ${item.raw.label ?? ""}`).join(", "),
              label: (item) => [`${y.title}: ${shown(item.raw.y, y.digits)}`, `${x.title}: ${shown(item.raw.x, x.digits)}`],
            },
          },
        },
      },
    };
  });

  network?.addEventListener("change", () => { refill(); chart.draw(); });
  for (const select of [quality, cost]) select.addEventListener("change", () => chart.draw());
}
