// Charts of what the page's figures say: bars of completed jobs and, on top, hatched, of failed
// ones, with a line of attempts that are tried again; and lines of how long jobs waited.
// What they show is also there as a table.
(() => {
  "use strict";

  const drawn = new Map(); // element id -> { plot, text }

  // A custom property may be light-dark(...), which a canvas does not know: have it resolved.
  function colour(name) {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }

  function hatch(ink) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 6;
    const pen = tile.getContext("2d");
    pen.globalAlpha = 0.45;
    pen.fillStyle = ink;
    pen.fillRect(0, 0, 6, 6);
    pen.globalAlpha = 1;
    pen.strokeStyle = ink;
    pen.lineWidth = 2;
    pen.beginPath();
    for (const [fromX, fromY, toX, toY] of [[-1, 7, 7, -1], [-1, 1, 1, -1], [5, 7, 7, 5]]) {
      pen.moveTo(fromX, fromY);
      pen.lineTo(toX, toY);
    }
    pen.stroke();
    return pen.createPattern(tile, "repeat");
  }

  function whole(value) {
    if (value >= 1e6) return `${value / 1e6}M`;
    return value >= 1e4 ? `${value / 1e3}k` : value.toLocaleString("en");
  }

  function seconds(value) {
    if (value === 0) return "0";
    if (value < 1) return `${+(value * 1000).toPrecision(3)} ms`;
    if (value < 120) return `${+value.toPrecision(3)} s`;
    return value < 7200 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
  }

  const STEPS = [1, 2, 5];
  const COUNTS = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => STEPS.map((step) => step * 10 ** power));
  const WAITS = [-3, -2, -1, 0].flatMap((power) => STEPS.map((step) => step * 10 ** power))
    .concat([10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400, 604800]);

  const KINDS = {
    // uPlot draws series over each other, so that the sum goes first and completed on top of it.
    ended: {
      least: 4,
      incrs: COUNTS,
      say: whole,
      columns: (points) => [
        points.map((point) => point[1] + point[2]),
        points.map((point) => point[1]),
        points.map((point) => point[3] || null),
      ],
      legend: (point) => ({ completed: whole(point[1]), failed: whole(point[2]), retried: whole(point[3]) }),
      series: () => {
        const paths = uPlot.paths.bars({ size: [0.82, 40], gap: 1 });
        const points = { show: false };
        const [good, bad, warn] = ["--good", "--bad", "--warn"].map(colour);
        return [
          { paths, points, fill: hatch(bad), stroke: bad, width: 1 },
          { paths, points, fill: good, stroke: good, width: 1 },
          { stroke: warn, width: 2, points: { show: true, size: 5, fill: warn } },
        ];
      },
    },
    waits: {
      least: 0.01,
      incrs: WAITS,
      say: seconds,
      columns: (points) => [points.map((point) => point[2] || null), points.map((point) => point[1] || null)],
      legend: (point) => ({ p50: point[1] ? seconds(point[1]) : "", p95: point[2] ? seconds(point[2]) : "" }),
      series: () => {
        const [high, middle] = ["--off", "--accent"].map(colour);
        return [
          { stroke: high, width: 2, dash: [6, 3], points: { show: false } },
          { stroke: middle, width: 2, points: { show: false } },
        ];
      },
    },
  };

  function put(name, text) {
    for (const place of document.querySelectorAll(`[data-legend="${name}"]`)) place.textContent = text;
  }

  function point(kind, name, found, step) {
    const said = KINDS[kind].legend(found || [0, 0, 0, 0]);
    for (const [key, text] of Object.entries(said)) put(key, found ? text : "");
    const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
    put(name, found ? `${clock(found[0])} to ${clock(found[0] + step)}` : "");
  }

  function draw(place, fresh) {
    const kind = place.dataset.chart;
    const { least, incrs, say, columns, series } = KINDS[kind];
    const text = place.dataset.points || "";
    const points = text ? text.split(";").map((each) => each.split(" ").map(Number)) : [];
    const data = [points.map((each) => each[0]), ...columns(points)];
    const step = Number(place.dataset.step) || 60;
    const before = drawn.get(place.id);
    if (before && !fresh && before.plot.root.isConnected) {
      if (text !== before.text) {
        before.plot.points = points;
        before.plot.setData(data);
        before.text = text;
      }
      return;
    }
    if (before) before.plot.destroy();
    place.replaceChildren();
    const ink = colour("--muted");
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: ink, font, ticks: { show: false }, grid: { stroke: colour("--line"), width: 1 } };
    const plot = new uPlot({
      width: place.clientWidth,
      height: place.clientHeight,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { setScale: false }, sync: { key: "time" } },
      scales: {
        x: { time: true, range: (u, min, max) => [min - step * 0.6, max + step * 0.6] },
        y: { range: (u, min, max) => [0, Math.max(least, (max || 0) * 1.08)] },
      },
      axes: [
        { ...axis, grid: { show: false }, size: 26, gap: 6, space: 64, values: "{HH}:{mm}",
          incrs: [60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400] },
        { ...axis, size: 52, space: 36, incrs, values: (u, ticks) => ticks.map(say) },
      ],
      series: [{}, ...series()],
      hooks: {
        setCursor: [(u) => point(kind, `${kind}-at`, u.points?.[u.cursor.idx ?? -1], step)],
      },
    }, data, place);
    plot.points = points;
    drawn.set(place.id, { plot, text });
  }

  function all(fresh) {
    for (const place of document.querySelectorAll("[data-chart]")) draw(place, fresh);
  }

  if (!window.uPlot) return;
  all(true);
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const plot = drawn.get(target.id)?.plot;
      if (plot && target.clientWidth && target.clientWidth !== plot.width) {
        plot.setSize({ width: target.clientWidth, height: target.clientHeight });
      }
    }
  });
  for (const place of document.querySelectorAll("[data-chart]")) observer.observe(place);
  document.addEventListener("jobmill:settled", () => all(false));
  document.addEventListener("jobmill:colours", () => all(true));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => all(true));
})();
