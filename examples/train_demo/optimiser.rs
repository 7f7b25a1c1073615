//! What turns gradients into steps: Muon for the matrices inside of layers, AdamW for everything else.
//!
//! Muon makes every direction of a matrix's step equally long, so that rare directions are learnt as fast as frequent ones.
//! Embeddings, heads, norms and biases are no such matrices.

use std::path::PathBuf;

use anyhow::Result;
use burn::{
    grad_clipping::GradientClippingConfig,
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    optim::{
        AdamW, AdamWConfig, AdjustLrFn, GradientsParams, Muon, MuonConfig, Optimizer, adaptor::OptimizerAdaptor,
        decay::WeightDecayConfig,
    },
    record::{FullPrecisionSettings, NamedMpkFileRecorder, Recorder},
    tensor::{
        Tensor,
        backend::{AutodiffBackend, Backend},
    },
};
use rayon::ThreadPool;
use secateur_backends::VlmBackend;

use crate::student::Student;

/// How much longer steps of matrices are than those of everything else.
const FASTER: f64 = 6.0;

const WEIGHT_DECAY: f32 = 0.02;

/// Both optimisers.
pub(crate) struct Optimiser<B: AutodiffBackend + VlmBackend> {
    /// Parts of the matrices, one for every thread.
    parts: Vec<Part<B>>,
    adam: OptimizerAdaptor<AdamW, Student<B>, B>,
}

struct Part<B: AutodiffBackend + VlmBackend> {
    matrices: Vec<ParamId>,
    muon: OptimizerAdaptor<Muon<B::InnerBackend>, Student<B>, B>,
}

impl<B: AutodiffBackend + VlmBackend> Optimiser<B> {
    /// Without momentum yet; for so many threads.
    pub(crate) fn new(student: &Student<B>, threads: usize) -> Self {
        let mut matrices = Matrices::default();
        student.visit(&mut matrices);
        let muon = MuonConfig::new()
            .with_weight_decay(Some(WeightDecayConfig::new(WEIGHT_DECAY)))
            // Steps as long as AdamW's.
            .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW);
        let adam = AdamWConfig::new()
            .with_beta_2(0.98)
            .with_weight_decay(WEIGHT_DECAY)
            .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)));
        let part =
            |i| Part { matrices: matrices.found.iter().skip(i).step_by(threads).copied().collect(), muon: muon.init() };
        Self { parts: (0..threads).map(part).collect(), adam: adam.init() }
    }

    /// A step of length `rate`; every part of the matrices has a pool.
    pub(crate) fn step(
        &mut self,
        rate: f64,
        student: Student<B>,
        mut grads: GradientsParams,
        pools: &[ThreadPool],
    ) -> Student<B> {
        let mut moved = Moved::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .parts
                .iter_mut()
                .zip(pools)
                .map(|(Part { matrices, muon }, pool)| {
                    let mut own = GradientsParams::new();
                    for id in matrices.iter() {
                        if let Some(grad) = grads.remove::<B::InnerBackend, 2>(*id) {
                            own.register(*id, grad);
                        }
                    }
                    let (student, matrices) = (student.clone(), &*matrices);
                    scope.spawn(move || (matrices, pool.install(|| muon.step(rate * FASTER, student, own))))
                })
                .collect();
            for thread in threads {
                let (matrices, student) = thread.join().expect("a thread of the optimiser");
                student.visit(&mut Collect { matrices, moved: &mut moved });
            }
        });
        self.adam.step(rate, student.map(&mut moved), grads)
    }

    /// Writes the momenta, each to the place of its name.
    pub(crate) fn save(&self, place: impl Fn(&str) -> PathBuf) -> Result<Vec<String>> {
        let recorder = NamedMpkFileRecorder::<FullPrecisionSettings>::new();
        recorder.record(self.adam.to_record(), place("adam"))?;
        let mut names = vec!["adam".to_owned()];
        for (i, part) in self.parts.iter().enumerate() {
            let name = format!("muon{i}");
            recorder.record(part.muon.to_record(), place(&name))?;
            names.push(name);
        }
        Ok(names)
    }

    /// With the momenta that [`Self::save`] wrote.
    pub(crate) fn load(mut self, place: impl Fn(&str) -> PathBuf, device: &B::Device) -> Result<Self> {
        let recorder = NamedMpkFileRecorder::<FullPrecisionSettings>::new();
        self.adam = self.adam.load_record(recorder.load(place("adam"), device)?);
        let load = |(i, Part { matrices, muon }): (usize, Part<B>)| -> Result<Part<B>> {
            let muon = muon.load_record(recorder.load(place(&format!("muon{i}")), device)?);
            Ok(Part { matrices, muon })
        };
        self.parts = self.parts.into_iter().enumerate().map(load).collect::<Result<_>>()?;
        Ok(self)
    }
}

/// Finds the weights of linear layers inside of encoders, projector and language model.
#[derive(Default)]
struct Matrices {
    path: Vec<String>,
    found: Vec<ParamId>,
}

impl<B: Backend> ModuleVisitor<B> for Matrices {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if D == 2 && self.path.iter().any(|name| name == "layers" || name == "projector") {
            self.found.push(param.id);
        }
    }
}

/// Matrices after their step.
#[derive(Default)]
struct Moved(GradientsParams);

/// Takes some matrices out of a student.
struct Collect<'a> {
    matrices: &'a [ParamId],
    moved: &'a mut Moved,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self.matrices.contains(&param.id) {
            self.moved.0.register(param.id, param.val().inner());
        }
    }
}

impl<B: AutodiffBackend> ModuleMapper<B> for Moved {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        match self.0.remove::<B::InnerBackend, D>(param.id) {
            Some(moved) => Param::initialized(param.id, Tensor::from_inner(moved).require_grad()),
            None => param,
        }
    }
}
