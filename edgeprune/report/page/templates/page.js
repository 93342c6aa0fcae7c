"use strict";
(() => {
  const options = { responsive: true, displayModeBar: false, displaylogo: false, scrollZoom: false };
  const spoken = document.getElementById("spoken");

  // Plotly is in the page, compressed. What runs is named in the page's security policy by its digest.
  async function unpack() {
    const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const text = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(text).text();
    document.head.append(script);
  }

  // What the label beside a point says, for those who hear the page.
  function sayLabel(plot) {
    const lines = [...plot.querySelectorAll(".hoverlayer text")].flatMap((text) => {
      const spans = [...text.querySelectorAll("tspan.line")];
      return spans.length ? spans.map((span) => span.textContent) : [text.textContent];
    });
    spoken.textContent = lines.filter(Boolean).join(", ");
  }

  // Every point of a plot, in the order of its traces; a heat map's row by row.
  function pointsOf(plot) {
    return plot.data.flatMap((trace, curveNumber) => {
      if (trace.hoverinfo === "skip") return [];
      if (trace.type === "heatmap") {
        return trace.z.flatMap((row, y) => row.map((_, x) => ({ xval: x, yval: y }))); // they have no numbers
      }
      return trace.x.map((_, pointNumber) => [{ curveNumber, pointNumber }]);
    });
  }

  function addKeys(plot) {
    const points = pointsOf(plot);
    let place = -1;
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") Plotly.Fx.unhover(plot);
      if (!step || !points.length) return;
      event.preventDefault();
      place = (place + step + points.length) % points.length;
      Plotly.Fx.hover(plot, points[place], "xy");
      setTimeout(() => sayLabel(plot), 100); // Plotly draws the label a moment later
    });
  }

  // On a narrow screen the names of rows leave room for their bars: their ends, as of names that are long anywhere.
  function shorten(axis) {
    const most = 22;
    axis.ticktext = axis.ticktext.map((name) => (name.length > most ? "…" + name.slice(1 - most) : name));
  }

  async function draw(source) {
    const plot = document.getElementById(source.dataset.plot);
    const figure = JSON.parse(source.textContent);
    if (plot.clientWidth < 480 && figure.layout.yaxis.ticktext) shorten(figure.layout.yaxis);
    const layout = { ...figure.layout, height: Number(plot.dataset.height) };
    await Plotly.newPlot(plot, figure.data, layout, options);
    addKeys(plot);
  }

  function valueOf(cell) {
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  }

  // Numbers before words; empty cells stay last in both directions.
  function compare(a, b, direction) {
    if (a === "" || b === "") return (a === "") - (b === "");
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return direction * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  }

  function sortBy(table, header, column) {
    const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => compare(valueOf(a.cells[column]), valueOf(b.cells[column]), direction));
    table.tBodies[0].append(...rows);
  }

  function makeSortable(table) {
    const rows = [...table.tBodies[0].rows];
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      if (rows.some((row) => row.cells[column].classList.contains("number"))) header.classList.add("number");
      if (rows.length < 3 || !table.classList.contains("sortable")) return;
      const button = document.createElement("button");
      button.textContent = header.textContent;
      button.addEventListener("click", () => sortBy(table, header, column));
      header.replaceChildren(button);
    });
  }

  function openForPrint() {
    const closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((one) => (one.open = true));
    document.querySelectorAll(".plot").forEach((plot) => Plotly.relayout(plot, { width: 680 }));
    window.addEventListener("afterprint", () => {
      closed.forEach((one) => (one.open = false));
      document.querySelectorAll(".plot").forEach((plot) => Plotly.relayout(plot, { width: null, autosize: true }));
    }, { once: true });
  }

  async function start() {
    document.querySelectorAll("table").forEach(makeSortable);
    await unpack();
    for (const source of document.querySelectorAll("script[data-plot]")) await draw(source);
    window.addEventListener("beforeprint", openForPrint);
    document.documentElement.dataset.drawn = "true";
  }

  start();
})();
